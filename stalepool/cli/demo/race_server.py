"""An HTTP server that closes each connection after a short, random idle time.

Arguments: ``LISTENING_FD MIN_IDLE_S MAX_IDLE_S``.
"""

from __future__ import annotations

import random
import selectors
import socket
import sys
import time
from typing import Dict, List

from stalepool.cli.demo.follow import follow_parent

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_SEED = 9696


class ShortIdleServer:
    """Answers every request at once, and closes who has been idle too long since.

    A connection without a request yet may take its time: a slow machine is no fault.
    """

    def __init__(self, listener: socket.socket, min_idle_s: float, max_idle_s: float) -> None:
        self._listener = listener
        self._idle_s = (min_idle_s, max_idle_s)
        self._random = random.Random(_SEED)
        self._closes_at: Dict[socket.socket, float] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            next_close = min(self._closes_at.values(), default=None)
            wait = None if next_close is None else max(0.0, next_close - time.monotonic())
            for key, _ in self._selector.select(wait):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._answer(key.fileobj)
            self._close_idle()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            sys.exit(f"cannot accept a connection: {error.strerror}")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ)

    def _answer(self, sock: socket.socket) -> None:
        try:
            request = sock.recv(65536)
            if request:
                sock.sendall(_ANSWER)
                self._closes_at[sock] = time.monotonic() + self._random.uniform(*self._idle_s)
                return
        except OSError:
            pass
        self._close(sock)

    def _close_idle(self) -> None:
        now = time.monotonic()
        for sock in [sock for sock, when in self._closes_at.items() if when <= now]:
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._closes_at.pop(sock, None)
        self._selector.unregister(sock)
        sock.close()


def main(arguments: List[str]) -> None:
    """Serve for ever."""
    fd, min_idle_s, max_idle_s = arguments
    server = ShortIdleServer(socket.socket(fileno=int(fd)), float(min_idle_s), float(max_idle_s))
    server.run()


if __name__ == "__main__":
    follow_parent()
    main(sys.argv[1:])
