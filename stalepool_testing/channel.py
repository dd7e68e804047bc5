"""A connection that brings requests, as a step sees it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Callable

from stalepool_testing import kernel
from stalepool_testing.arguments import DOWN, UP
from stalepool_testing.kernel import POLLIN, POLLRDHUP
from stalepool_testing.messages import CRLF, Request, parse_head
from stalepool_testing.tls import TLS
from stalepool_testing.wire import IO_TIMEOUT_S, Ended, Wire, raise_ended


class Channel(Wire):
    """A connection, its requests, and the ways to steer it from outside.

    Only the thread that serves the connection uses it, except :meth:`tell`, :meth:`stop` and
    :meth:`unblock`. Every wait ends early when the server stops.

    :ivar sock: the accepted socket; with TLS an ``ssl.SSLSocket``, or a green one.
    :ivar number: the number of the connection; the first is 0.
    :ivar journal: the journal to which it writes.
    """

    # -- read requests -------------------------------------------------------------------------

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
            self._read()
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

    def wait_either(self, other: socket.socket | None) -> bool:
        """Wait for something to read here or on another socket.

        :returns: True if the other one has something, or has ended.
        """
        if self._buffer or self._in_tls():
            return bool(other and kernel.events_on(other))
        both = [self.sock] if other is None else [self.sock, other]
        found = self._doorbell.wait({sock.fileno(): POLLIN for sock in both})
        return other is not None and other.fileno() in found

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

    # -- begin and end it ----------------------------------------------------------------------

    def start_tls(self, tls: TLS) -> None:
        """Do the server's part of the handshake.

        :raises OSError: the client refuses the certificate, or takes over 10 s.
        """
        self.sock = tls.wrap_server(self.sock)
        self.meet_faults()  # they could not reach the socket while it was wrapped
        self.sock.setblocking(False)  # so that the server can be stopped meanwhile
        was_delayed = is_done = False
        try:
            while not is_done:
                if not self._wait(POLLIN, IO_TIMEOUT_S):
                    raise TimeoutError("the client does not shake hands")
                if not was_delayed:
                    self._be_late(UP)
                    self._bytes_to_read()  # for the fault that resets
                    self._be_late(DOWN)
                    was_delayed = True
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.sock.do_handshake()
                    is_done = True
        except OSError as error:
            self.journal.write(self.number, f"no TLS handshake: {error}")
            raise
        self._block()

    def meet_faults(self) -> None:
        """Put the faults in force on the connection that were added before it came."""
        self._network.accepted(self.number, self.sock)

    def tell(self, order: Callable[[], None]) -> bool:
        """Have the connection's own thread do something the next time it waits.

        :returns: False if the connection is over, so that it will not be done.
        """

        def carry_out() -> None:
            order()
            if not self.is_open:
                raise Ended

        return self._doorbell.tell(carry_out)

    def stop(self) -> None:
        """Have the connection's own thread end; does not wait for it."""
        self._doorbell.tell(raise_ended)

    def unblock(self) -> None:
        """Stop a thread that is stuck while it sends to a client that does not read."""
        try:
            kernel.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed by now, or the client has gone

    def release(self) -> None:
        """Close all descriptors; the connection's thread does this last."""
        self._network.let_go(self.number)
        self.close(how="stopped" if self.is_open else "closed")
        self._doorbell.close()
