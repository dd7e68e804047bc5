"""The server's end of one connection, whose bytes pass through the faults in force."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from stalepool_testing import kernel
from stalepool_testing.arguments import DOWN, UP
from stalepool_testing.doorbell import Doorbell
from stalepool_testing.journal import Journal
from stalepool_testing.kernel import POLLIN
from stalepool_testing.network import Network
from stalepool_testing.tls_sockets import say_goodbye

IO_TIMEOUT_S = 10.0
_READ_SIZE = 65536
_SLICE_S = 0.05


class Ended(Exception):
    """The connection is over, so the thread that serves it ends. Not an error."""


def raise_ended() -> None:
    """Raise :class:`Ended`: what a thread that waits is told so that it ends."""
    raise Ended


class Wire:
    """A socket and its read buffer, waits that can be interrupted, and the ways to end it.

    :param client: the client's address, as ``accept()`` has it.
    """

    def __init__(
        self, sock: socket.socket, journal: Journal, network: Network, client: Any
    ) -> None:
        self.sock = sock
        self.journal = journal
        self._record = journal._connected(client)
        self.number = self._record.number
        self._network = network
        self._doorbell = Doorbell()
        self._buffer = bytearray()
        self._block()

    @property
    def ended(self) -> str | None:
        """``None`` while it is open, otherwise how it ended; see ``Connection.ended``."""
        return self._record.ended

    @property
    def is_open(self) -> bool:
        """False as soon as somebody has closed the socket on this side."""
        return self.sock.fileno() >= 0

    def send(self, data: bytes) -> None:
        """Hand bytes to the kernel, over TLS as one record up to 16 KiB.

        :raises Ended: a fault resets the connection.
        """
        self._be_late(DOWN)
        while data:
            size = self._next_slice(DOWN, len(data))
            self._take_time(DOWN, size)
            self.sock.sendall(data[:size])
            data = data[size:]

    def flush(self) -> None:
        """Wait until the client's kernel has acknowledged all that was sent; TCP on Linux.

        :raises TimeoutError: it has not within 5 s.
        """
        if self.sock.family != socket.AF_UNIX:
            kernel.wait_until(
                lambda: kernel.unacknowledged_bytes(self.sock) == 0, "acknowledgement"
            )

    def pause(self, seconds: float | None) -> None:
        """Wait, whatever the client does meanwhile; with ``None`` until the server stops."""
        self._wait(0, seconds)

    def half_close(self) -> None:
        """Send a FIN and go on reading (``shutdown(SHUT_WR)``)."""
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

    def client_gone(self) -> Ended:
        """Note that the client has closed the connection; return what to raise."""
        self.close(how="client")
        return Ended()

    def _is_readable(self, timeout_s: float | None) -> bool:
        return self._in_tls() or bool(self._wait(POLLIN, timeout_s))

    def _receive(self, timeout_s: float | None) -> None:
        if self._is_readable(timeout_s):
            self._read()

    def _read(self) -> None:
        """Read the application data that has arrived into the buffer.

        :raises Ended: the client has closed the connection, or a fault resets it.
        """
        size = self._bytes_to_read()
        self.sock.setblocking(False)
        try:
            data = self.sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            return  # half a TLS record, or one without application data
        except OSError:
            data = b""
        finally:
            self._block()
        if not data:
            raise self.client_gone()
        self._buffer += data
        self._take_time(UP, len(data))

    def _be_late(self, direction: str) -> None:
        delay_s = self._network.delay_s(self.number, direction)
        if delay_s:
            self.pause(delay_s)

    def _bytes_to_read(self) -> int:
        has_bytes = self._in_tls() or kernel.unread_bytes(self.sock)  # if not: a FIN or an RST
        return self._next_slice(UP, _READ_SIZE) if has_bytes else _READ_SIZE

    def _next_slice(self, direction: str, most: int) -> int:
        fault = self._network.resetting(self.number, direction)
        if fault is not None:
            self.journal.write(self.number, f"a byte meets {fault}")
            self.reset()
            raise Ended
        rate = self._network.bytes_per_s(self.number, direction)
        return most if rate is None else max(1, min(most, int(rate * _SLICE_S)))

    def _take_time(self, direction: str, size: int) -> None:
        rate = self._network.bytes_per_s(self.number, direction)
        if rate is not None:
            self.pause(size / rate)

    def _wait(self, events: int, timeout_s: float | None) -> int:
        descriptors = {self.sock.fileno(): events} if events else {}
        return sum(self._doorbell.wait(descriptors, timeout_s).values())

    def _in_tls(self) -> bool:
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def _block(self) -> None:
        self.sock.setblocking(True)  # settimeout alone does not tell eventlet's TLS socket
        self.sock.settimeout(IO_TIMEOUT_S)
