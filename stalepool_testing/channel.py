"""The server's end of one connection, as a step sees it."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Callable

from stalepool_testing import kernel
from stalepool_testing.arguments import DOWN, UP
from stalepool_testing.faults import ResetAtNextByte
from stalepool_testing.journal import Journal
from stalepool_testing.kernel import POLLIN
from stalepool_testing.network import Network
from stalepool_testing.reader import Reader
from stalepool_testing.tls import TLS
from stalepool_testing.tls_sockets import say_goodbye
from stalepool_testing.wire import IO_TIMEOUT_S, Ended


class Channel(Reader):
    """A connection, its read buffer, and the ways to end it.

    Only the thread that serves the connection uses it, except :meth:`tell`, :meth:`stop` and
    :meth:`unblock`. Every wait ends early when the server stops.

    :ivar sock: the accepted socket; with TLS an ``ssl.SSLSocket``, or a green one.
    :ivar journal: the journal to which it writes.
    :param client: the client's address, as ``accept()`` has it.
    """

    def __init__(
        self, sock: socket.socket, journal: Journal, network: Network, client: Any = None
    ) -> None:
        self.journal = journal
        self._record = journal._connected(client)
        super().__init__(sock, self._record.number, network)

    @property
    def ended(self) -> str | None:
        """``None`` while it is open, otherwise how it ended; see ``Connection.ended``."""
        return self._record.ended

    @property
    def is_open(self) -> bool:
        """False as soon as somebody has closed the socket on this side."""
        return self.sock.fileno() >= 0

    def start_tls(self, tls: TLS) -> None:
        """Do the server's part of the handshake.

        :raises OSError: the client refuses the certificate, or takes over 10 s.
        """
        sock = tls.wrap_server(self.sock)
        self.sock = sock
        self.meet_faults()  # they could not reach the socket while it was wrapped
        sock.setblocking(False)
        was_delayed = False
        while True:
            if not self._wait(POLLIN, IO_TIMEOUT_S):
                raise TimeoutError("the client does not shake hands")
            if not was_delayed:
                self._be_late(UP)
                self._bytes_to_read()  # for the fault that resets
                self._be_late(DOWN)
                was_delayed = True
            try:
                sock.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        self._block()

    def meet_faults(self) -> None:
        """Put the faults in force on the connection that were added before it came."""
        self._network.accepted(self.number, self.sock)

    def wait_either(self, other: socket.socket | None) -> bool:
        """Wait for something to read here or on another socket.

        :returns: True if the other one has something, or has ended.
        """
        if self._buffer or self._in_tls():
            return bool(other and kernel.events_on(other))
        both = [self.sock] if other is None else [self.sock, other]
        found = self._doorbell.wait({sock.fileno(): POLLIN for sock in both})
        return other is not None and other.fileno() in found

    def flush(self) -> None:
        """Wait until the client's kernel has acknowledged all that was sent; TCP on Linux.

        :raises TimeoutError: it has not within 5 s.
        """
        if self.sock.family != socket.AF_UNIX:
            kernel.wait_until(
                lambda: kernel.unacknowledged_bytes(self.sock) == 0, "acknowledgement"
            )

    def half_close(self, close_notify: bool = False) -> None:
        """Send a FIN and go on reading (``shutdown(SHUT_WR)``)."""
        if close_notify:
            say_goodbye(self.sock)
        kernel.shutdown(self.sock, socket.SHUT_WR)

    def close(self, close_notify: bool = False, how: str = "closed") -> None:
        """Close: the kernel sends a FIN, or an RST if there are unread bytes.

        :param close_notify: over TLS, end the session first.
        """
        if self.ended is not None:
            return
        if close_notify:
            say_goodbye(self.sock)
        self.sock.close()
        self.journal._ended(self._record, how)

    def reset(self, how: str = "reset") -> None:
        """Close with an RST."""
        if self.ended is None:
            kernel.reset(self.sock)
            self.journal._ended(self._record, how)

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

        def end() -> None:
            raise Ended

        self._doorbell.tell(end)

    def unblock(self) -> None:
        """Stop a thread that is stuck while it sends to a client that does not read."""
        try:
            kernel.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed by now, or the client has gone

    def release(self) -> None:
        """Close all descriptors; the connection's thread does this last."""
        if self.is_open:
            self._network.let_go(self.number, self.sock)
        self.close(how="stopped" if self.is_open else "closed")
        self._doorbell.close()

    def client_gone(self) -> Ended:
        self.close(how="client")
        return Ended()

    def reset_by(self, fault: ResetAtNextByte) -> Ended:
        self.journal.write(self.number, f"a byte meets {fault}")
        self.reset()
        return Ended()
