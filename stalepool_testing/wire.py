"""One connection, whose bytes pass through the faults in force."""

from __future__ import annotations

import socket
import ssl

from stalepool_testing import kernel
from stalepool_testing.arguments import DOWN, UP
from stalepool_testing.doorbell import Doorbell
from stalepool_testing.faults import ResetAtNextByte
from stalepool_testing.kernel import POLLIN
from stalepool_testing.network import Network

IO_TIMEOUT_S = 10.0
_READ_SIZE = 65536
_SLICE_S = 0.05


class Ended(Exception):
    """The connection is over, so the thread that serves it ends. Not an error."""


class Wire:
    """A socket, with waits that can be interrupted.

    :ivar sock: the accepted socket; with TLS an ``ssl.SSLSocket``, or a green one.
    :ivar number: the number of the connection; the first is 0.
    """

    def __init__(self, sock: socket.socket, number: int, network: Network) -> None:
        self.sock = sock
        self.number = number
        self._network = network
        self._doorbell = Doorbell()
        self._block()

    def client_gone(self) -> Ended:
        """Note that the client has closed the connection; return what to raise."""
        return Ended()

    def reset_by(self, fault: ResetAtNextByte) -> Ended:
        """Note that a fault ends the connection; return what to raise."""
        return Ended()

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

    def pause(self, seconds: float | None) -> None:
        """Wait, whatever the client does meanwhile; with ``None`` until the server stops."""
        self._wait(0, seconds)

    def _is_readable(self, timeout_s: float | None) -> bool:
        return self._in_tls() or bool(self._wait(POLLIN, timeout_s))

    def _read_into(self, buffer: bytearray) -> None:
        """Read the application data that has arrived.

        :raises Ended: the client has closed the connection, or a fault resets it.
        """
        data: bytes | None
        size = self._bytes_to_read()
        self.sock.setblocking(False)
        try:
            data = self.sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            data = None  # half a TLS record, or one without application data
        except OSError:
            data = b""
        self._block()
        if data is None:
            return
        if not data:
            raise self.client_gone()
        buffer += data
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
            raise self.reset_by(fault)
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
