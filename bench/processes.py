"""Processes of their own: one for everything that is measured, and one for its server."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import random
import re
import select
import signal
import socket
import ssl
import time
import warnings
from typing import Any, Iterator, Optional, Sequence, Tuple

from bench import EVENTLET, THREADS
from stalepool_testing import TLS
from stalepool_testing.messages import answer_bytes

_SPAWN = multiprocessing.get_context("spawn")

#: in a child: the way to its parent
pipe: Any = None


class ChildFailed(Exception):
    """A measuring process has ended, and has said on stderr why."""


class Child(contextlib.AbstractContextManager):  # type: ignore[type-arg]
    """A process that calls a function, and says what that returns.

    If that is a function again, it calls this one whenever it is asked. Leaving the ``with`` block
    ends it.

    :param seed: of hashes; two that are compared get the same, so that their dicts lie alike.
    """

    def __init__(self, function: Any, world: str = THREADS, seed: int = 0, **more: Any) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        work = (theirs, world, function, more)
        self._process = _SPAWN.Process(target=_work, args=work, daemon=True)
        os.environ["PYTHONHASHSEED"] = str(seed)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for us
        self._process.start()
        signal.signal(signal.SIGINT, before)
        theirs.close()

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def read(self, asks: bool = False) -> Any:
        """Return what it says next, where it waits for that after it was asked.

        :raises ChildFailed: it ended instead.
        """
        try:
            if asks:
                self._pipe.send(None)
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise ChildFailed("a process ended with %s" % self._process.exitcode) from None


def _work(to_parent: Any, world: str, function: Any, arguments: Any) -> None:
    global pipe
    pipe = to_parent
    warnings.simplefilter("ignore")  # eventlet speaks of its own future, others of Python 3.8's
    logging.getLogger().addHandler(logging.NullHandler())  # stalepool, of checks without a request
    if world == EVENTLET:
        import eventlet

        eventlet.monkey_patch()
    result = function(**arguments)
    while callable(result):
        pipe.recv()
        pipe.send(result())
    pipe.send(result)


def call(function: Any, world: str = THREADS, **arguments: Any) -> Any:
    """Have a new process call a function, and return what it returns."""
    with Child(function, world, **arguments) as child:
        return child.read()


_length = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE).search
_ANSWER = answer_bytes(200, b'{"servers": []}', {"Content-Type": "application/json"})

#: where a server is: its URL, and the path of its authority's certificate where it speaks TLS
At = Tuple[str, Optional[str]]


@contextlib.contextmanager
def server(tls: bool = False, idle_s: Sequence[float] = (), spins: bool = False) -> Iterator[At]:
    """Serve HTTP with keep-alive until the block is left, in a process that does little else.

    :param tls: speak TLS 1.3, two session tickets a connection, as servers do by default.
    :param idle_s: close a connection that has been idle for its own random time between these two.
    :param spins: never sleep, so that no client pays for waking it; takes a processor.
    """
    files = TLS() if tls else None  # made here: a process that is killed would leave them behind
    with Child(_serve, pem=files and files.cert_path, idle_s=idle_s, spins=spins) as child:
        yield child.read(), files and files.ca_path


def manager(at: At, maxsize: int = 1) -> Any:
    """Return urllib3's pools for the server at ``at``."""
    import urllib3

    return urllib3.PoolManager(maxsize=maxsize, ca_certs=at[1])


def _serve(pem: Optional[str], idle_s: Sequence[float], spins: bool) -> None:
    context = None
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(pem)
    # a backlog for all clients of a race at once
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    pipe.send("http%s://127.0.0.1:%d/" % ("s" * bool(pem), listener.getsockname()[1]))
    epoll, connections = select.epoll(), {}
    for each in (listener, pipe):
        epoll.register(each.fileno(), select.EPOLLIN)
    wait_s = 0 if spins else 0.002 if idle_s else -1
    while True:
        for fd, _ in epoll.poll(wait_s):
            if fd in connections:
                if not connections[fd].answer():
                    del connections[fd]
            elif fd == pipe.fileno():
                return
            else:
                accepted = _Connection(listener.accept()[0], context, idle_s)
                connections[accepted.sock.fileno()] = accepted
                epoll.register(accepted.sock.fileno(), select.EPOLLIN)
                del accepted  # it would stay open, and registered, after it is forgotten
        if idle_s:
            now = time.monotonic()
            connections = {fd: each for fd, each in connections.items() if each.ends_at > now}


class _Connection:
    """Answers so fast that no green client has to wait; is closed by being forgotten."""

    def __init__(self, sock: socket.socket, context: Any, idle_s: Sequence[float]) -> None:
        self.sock = context.wrap_socket(sock, server_side=True) if context else sock
        self._limit_s, self._unanswered = random.uniform(*idle_s) if idle_s else math.inf, b""
        self.ends_at = time.monotonic() + self._limit_s

    def answer(self) -> bool:
        """Read, and answer what is a whole request; False: the client has left."""
        with contextlib.suppress(OSError):
            data = self.sock.recv(65536)
            self._unanswered += data
            head, end, body = self._unanswered.partition(b"\r\n\r\n")
            length = _length(head)  # parse_head takes longer than an answer may
            if end and len(body) >= (int(length[1]) if length else 0):
                self._unanswered = b""
                self.sock.sendall(_ANSWER)
                self.ends_at = time.monotonic() + self._limit_s
            return bool(data)
        return False
