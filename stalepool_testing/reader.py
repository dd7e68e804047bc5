"""Reading from a connection, with waits that can be interrupted."""

from __future__ import annotations

import socket
import ssl
import time

from stalepool_testing import kernel
from stalepool_testing.doorbell import Doorbell
from stalepool_testing.kernel import POLLIN, POLLRDHUP
from stalepool_testing.messages import CRLF, Request, parse_head

IO_TIMEOUT_S = 10.0


class Ended(Exception):
    """The connection is over, so the thread that serves it may go. Not an error."""


class Reader:
    """A socket, and what has been read from it and not yet been taken.

    :ivar sock: the accepted socket; with TLS an ``ssl.SSLSocket``, or its green kin.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()
        self._doorbell = Doorbell()
        self._block()

    def client_gone(self) -> Ended:
        """Called when the client has closed the connection; what to raise then."""
        return Ended()

    def wait_request(self, timeout_s: float | None = None) -> bool:
        """Wait for the first bytes of a request.

        :param timeout_s: how long; ``None`` waits for ever.
        :returns: True when there are some, False when the time is up.
        :raises Ended: when the client has closed the connection.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._buffer:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._receive(left):
                return False
        return True

    def pause(self, seconds: float | None) -> None:
        """Let time pass, whatever the client does meanwhile; ``None`` until the server stops."""
        self._wait(0, seconds)

    def park(self, seconds: float | None = None) -> None:
        """Let time pass until the client goes away; reads nothing.

        :raises Ended: when the client has closed its side.
        """
        if self._wait(POLLRDHUP, seconds):
            raise self.client_gone()

    def read_head(self) -> Request:
        """Read the head of the next request.

        :raises Ended: when the client goes before it is complete.
        :raises ValueError: when it is no HTTP/1 request.
        """
        return parse_head(self._take_until(CRLF + CRLF))

    def read_body(self, request: Request) -> bytes:
        """Read the body that belongs to this head; Content-Length or chunked."""
        if request.expects_continue and not self._buffer:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
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
        """What the client has sent and nobody has read; empty when there is nothing.

        :raises Ended: when the client has closed the connection.
        """
        self._receive(0)
        return self._take(len(self._buffer))

    def throw_away(self) -> None:
        """Take what the kernel has for us and do nothing with it, so that a close sends a FIN."""
        self._buffer.clear()
        kernel.drain(self.sock)

    def _wait(self, events: int, timeout_s: float | None) -> int:
        descriptors = {self.sock.fileno(): events} if events else {}
        return sum(self._doorbell.wait(descriptors, timeout_s).values())

    def _receive(self, timeout_s: float | None) -> bool:
        if not self._in_tls() and not self._wait(POLLIN, timeout_s):
            return False
        data: bytes | None
        self.sock.setblocking(False)
        try:
            data = self.sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            data = None  # half a TLS record, or one without application data
        except OSError:
            data = b""
        self._block()
        if data is None:
            return True
        if not data:
            raise self.client_gone()
        self._buffer += data
        return True

    def _in_tls(self) -> bool:
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def _block(self) -> None:
        self.sock.setblocking(True)  # settimeout alone does not tell eventlet's TLS socket
        self.sock.settimeout(IO_TIMEOUT_S)

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
