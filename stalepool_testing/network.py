"""The list of faults in force on a running server, and its changes while connections are open."""

from __future__ import annotations

import socket
import threading
from typing import Iterable, TypeVar

from stalepool_testing import blackhole
from stalepool_testing.faults import Bandwidth, Blackout, Fault, Latency, ResetAtNextByte
from stalepool_testing.journal import Journal
from stalepool_testing.kernel import Unavailable

A = TypeVar("A", bound="AddedFault")
Directed = TypeVar("Directed", Latency, Bandwidth, ResetAtNextByte)

#: the listening socket's place among the numbers of the connections
LISTENING = -1


class AddedFault:
    """A fault that was added to a server; the end of its ``with`` block lifts it.

    :ivar fault: the fault.
    """

    def __init__(self, fault: Fault, connections: frozenset[int] | None, network: Network) -> None:
        self.fault = fault
        self._connections = connections
        self._network = network

    def __enter__(self: A) -> A:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.lift()

    def lift(self) -> None:
        """End the fault: bytes pass as before. Does nothing the second time."""
        self._network.lift(self)

    def meets(self, number: int) -> bool:
        """Tell whether it affects the connection of that number."""
        return self._connections is None or number in self._connections


class Network:
    """The faults in force, and the sockets that swallow what arrives because of them.

    Safe for use by several threads. Connections have numbers; the server's listening socket counts
    as the connection of the number ``LISTENING``.

    :param journal: the journal to which it writes.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._in_force: tuple[AddedFault, ...] = ()
        self._sockets: dict[int, socket.socket] = {}
        self._swallowing: set[int] = set()
        self._lock = threading.Lock()

    def delay_s(self, number: int, direction: str) -> float:
        """Return how late a message is on a connection, in seconds."""
        return sum(fault.seconds for fault in self._meeting(number, Latency, direction))

    def bytes_per_s(self, number: int, direction: str) -> int | None:
        """Return how many bytes pass on a connection; ``None`` without a limit."""
        rates = (fault.bytes_per_s for fault in self._meeting(number, Bandwidth, direction))
        return min(rates, default=None)

    def resetting(self, number: int, direction: str) -> ResetAtNextByte | None:
        """Return the fault that resets a connection at its next byte, if there is one."""
        return next(iter(self._meeting(number, ResetAtNextByte, direction)), None)

    def add(self, fault: Fault, connections: frozenset[int] | None) -> AddedFault:
        """Put a fault in force on these connections; ``None``: on all, and on those to come."""
        to = ""
        if connections is not None:
            to = f" to connections {', '.join(map(str, sorted(connections))) or 'none'}"
        self._journal.write(None, f"{fault} added{to}")
        added = AddedFault(fault, connections, self)
        with self._lock:
            self._in_force += (added,)
            self._swallow(self._sockets)
        return added

    def lift(self, added: AddedFault) -> None:
        """Undo :meth:`add`; does nothing if it is not in force any more."""
        with self._lock:
            if added not in self._in_force:
                return
            self._in_force = tuple(other for other in self._in_force if other is not added)
            self._swallow(self._sockets)
        self._journal.write(None, f"{added.fault} lifted")

    def accepted(self, number: int, sock: socket.socket) -> None:
        """Put the faults in force on a new connection, or where the server listens anew."""
        with self._lock:
            self._sockets[number] = sock
            self._swallow([number])

    def let_go(self, number: int) -> None:
        """Forget a connection, and stop it from swallowing, just before it is closed.

        Otherwise its FIN would be retransmitted for a minute, as the ACK would be swallowed, too.
        """
        with self._lock:
            sock = self._sockets.pop(number)
            if number in self._swallowing:
                self._swallowing.discard(number)
                if sock.fileno() >= 0:
                    blackhole.release(sock)

    def _swallow(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            sock = self._sockets[number]
            swallows = any(
                isinstance(added.fault, Blackout) and added.meets(number)
                for added in self._in_force
            )
            # without a descriptor while TLS is put upon it; then the faults are met again
            if swallows == (number in self._swallowing) or sock.fileno() < 0:
                continue
            try:
                if swallows:
                    blackhole.swallow(sock)
                    self._swallowing.add(number)
                else:
                    self._swallowing.discard(number)
                    blackhole.release(sock)
            except Unavailable:
                pass  # it is closed

    def _meeting(self, number: int, kind: type[Directed], direction: str) -> Iterable[Directed]:
        for added in self._in_force:
            fault = added.fault
            if isinstance(fault, kind) and fault.direction == direction and added.meets(number):
                yield fault
