"""Reading requests from a connection."""

from __future__ import annotations

import socket
import time

from stalepool_testing import kernel
from stalepool_testing.arguments import UP
from stalepool_testing.kernel import POLLRDHUP
from stalepool_testing.messages import CRLF, Request, parse_head
from stalepool_testing.network import Network
from stalepool_testing.wire import Wire


class Reader(Wire):
    """A wire, with a buffer of what has been read and not yet taken."""

    def __init__(self, sock: socket.socket, number: int, network: Network) -> None:
        super().__init__(sock, number, network)
        self._buffer = bytearray()

    def wait_request(self, timeout_s: float | None = None) -> bool:
        """Wait for the first bytes of a request.

        :param timeout_s: how long; ``None`` waits for ever.
        :returns: True if there are some, False after the timeout.
        :raises Ended: the client has closed the connection.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        was_delayed = False
        while not self._buffer:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._is_readable(left):
                return False
            if not was_delayed:
                self._be_late(UP)
                was_delayed = True
            self._read_into(self._buffer)
        return True

    def park(self, seconds: float | None = None) -> None:
        """Wait until the client closes; read nothing.

        :raises Ended: the client has closed its side.
        """
        if self._wait(POLLRDHUP, seconds):
            raise self.client_gone()

    def read_head(self) -> Request:
        """Read the head of the next request.

        :raises Ended: the client has closed before the head is complete.
        :raises ValueError: it is no HTTP/1 request.
        """
        return parse_head(self._take_until(CRLF + CRLF))

    def read_body(self, request: Request) -> bytes:
        """Read the body that belongs to this head; Content-Length or chunked."""
        if request.expects_continue and not self._buffer:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not request.is_chunked:
            return self._take(request.content_length)
        body = bytearray()
        while True:
            size = int(self._take_until(CRLF).split(b";")[0], 16)
            if size == 0:
                break
            body += self._take(size)
            self._take(len(CRLF))
        while self._take_until(CRLF):
            pass  # trailers
        return bytes(body)

    def take_all(self) -> bytes:
        """Return what the client has sent and nobody has read; may be empty.

        :raises Ended: the client has closed the connection.
        """
        self._receive(0)
        return self._take(len(self._buffer))

    def throw_away(self) -> None:
        """Read the unread bytes and ignore them, so that a close sends a FIN."""
        self._buffer.clear()
        kernel.drain(self.sock)

    def _receive(self, timeout_s: float | None) -> None:
        if self._is_readable(timeout_s):
            self._read_into(self._buffer)

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._receive(None)
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _take_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._receive(None)
        taken = self._take(self._buffer.index(end))
        self._take(len(end))
        return taken
