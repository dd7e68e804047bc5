"""A keep-alive server that costs next to nothing, in a process of its own, and its clients."""

from __future__ import annotations

import random
import re
import select
import socket
import sys
import time
from typing import Any, Dict, Optional, Tuple

from bench.child import Child
from bench.inside import say

_BODY = b'{"servers": []}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\n"
    b"Date: Sat, 01 Jan 2000 00:00:00 GMT\r\n"
    b"Server: bench\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"X-Request-Id: req-5f9a1a4e-0c77-4d2b-a0a2-2f7f5a1f7f6d\r\n"
    b"\r\n%s" % (len(_BODY), _BODY)
)
_length = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE).search

#: where a server is: ``port``, and ``ca_path`` where it speaks TLS
At = Dict[str, Any]


class Server(Child):
    """Serves until the ``with`` block is left.

    :param tls: speak TLS 1.3, two session tickets a connection, as servers do by default.
    :param idle_s: close a connection that has been idle for a random time between these two.
    :param spins: never sleep, so as to answer at once; takes a processor for itself.
    """

    def __init__(
        self, tls: bool = False, idle_s: Optional[Tuple[float, float]] = None, spins: bool = False
    ) -> None:
        super().__init__("bench.server:serve", tls=tls, idle_s=idle_s, spins=spins)
        self.at: At = self.read()


def pool(at: At, maxsize: int = 1) -> Any:
    """Return a urllib3 pool for the server at ``at``."""
    import urllib3

    if at["ca_path"] is None:
        return urllib3.HTTPConnectionPool("127.0.0.1", at["port"], maxsize=maxsize)
    return urllib3.HTTPSConnectionPool(
        "127.0.0.1", at["port"], maxsize=maxsize, ca_certs=at["ca_path"]
    )


def serve(tls: bool, idle_s: Optional[Tuple[float, float]], spins: bool) -> None:
    """Say where we are, and serve until stdin ends."""
    # a backlog for all clients of a race at once
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    context, ca_path = None, None
    if tls:
        from stalepool_testing import TLS

        certificate = TLS("TLSv1.3", num_tickets=2)
        context, ca_path = certificate.server_context, certificate.ca_path
    say({"port": listener.getsockname()[1], "ca_path": ca_path})
    _Loop(listener, context, idle_s, spins).run()


class _Loop:
    def __init__(self, listener: socket.socket, context: Any, idle_s: Any, spins: bool) -> None:
        self.listener, self.context, self.idle_s = listener, context, idle_s
        self.sleeps_s = 0 if spins else 0.002 if idle_s else -1
        self.epoll = select.epoll()
        self.connections: Dict[int, socket.socket] = {}
        self.unanswered: Dict[int, bytes] = {}
        self.deadlines: Dict[int, float] = {}
        self.random = random.Random(1)

    def run(self) -> None:
        ear, stdin = self.listener.fileno(), sys.stdin.fileno()
        self.epoll.register(ear, select.EPOLLIN)
        self.epoll.register(stdin, select.EPOLLIN)
        while True:
            for fd, _ in self.epoll.poll(self.sleeps_s):
                if fd == ear:
                    self.accept()
                elif fd == stdin:
                    return
                else:
                    self.answer(fd)
            if self.idle_s:
                self.close_idle()

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context is not None:
            connection = self.context.wrap_socket(connection, server_side=True)
        fd = connection.fileno()
        self.connections[fd] = connection
        self.epoll.register(fd, select.EPOLLIN)
        self.touch(fd)

    def answer(self, fd: int) -> None:
        connection = self.connections[fd]
        try:
            data = connection.recv(65536)
            if data:
                data = self.unanswered.pop(fd, b"") + data
                if _is_whole(data):
                    connection.send(ANSWER)
                    self.touch(fd)
                else:
                    self.unanswered[fd] = data
                return
        except OSError:
            pass
        self.close(fd)

    def touch(self, fd: int) -> None:
        if self.idle_s:
            self.deadlines[fd] = time.monotonic() + self.random.uniform(*self.idle_s)

    def close_idle(self) -> None:
        now = time.monotonic()
        for fd in [fd for fd, deadline in self.deadlines.items() if deadline <= now]:
            self.close(fd)

    def close(self, fd: int) -> None:
        self.epoll.unregister(fd)
        self.deadlines.pop(fd, None)
        self.unanswered.pop(fd, None)
        self.connections.pop(fd).close()


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = _length(head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)
