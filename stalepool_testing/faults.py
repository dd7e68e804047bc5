"""Faults of the path to a running server, by kind: ``add()`` starts one, ``lift()`` ends it.

They affect every byte of a connection, whatever the script does, and can be stacked. ``"up"`` is
from the client to the server, ``"down"`` from the server to the client.
"""

from __future__ import annotations

from dataclasses import dataclass

from stalepool_testing import blackhole
from stalepool_testing.arguments import COUNT, DIRECTION, DOWN, SECONDS, UP, Checked


class Fault(Checked):
    """One fault of the path between a server and its clients."""

    belongs = "in server.add()"


@dataclass(frozen=True)
class Latency(Fault):
    """Each request, or each write of the server, takes that much longer to arrive.

    Several add up. A TLS handshake is late once in each direction; TCP's own packets are not late.
    What is on its way when the fault is lifted keeps its delay.

    :param direction: ``"down"``: the answers are late; ``"up"``: the requests are.
    """

    seconds: float
    direction: str = DOWN
    takes = {"seconds": SECONDS, "direction": DIRECTION}


@dataclass(frozen=True)
class Bandwidth(Fault):
    """On each connection no more than so many bytes pass in a second, in slices of 50 ms.

    Of several the smallest counts. Over TLS the bytes inside are counted, not the handshake.

    :param direction: ``"down"``: answers; ``"up"``: requests.
    """

    bytes_per_s: int
    direction: str = DOWN
    takes = {"bytes_per_s": COUNT, "direction": DIRECTION}


@dataclass(frozen=True)
class ResetAtNextByte(Fault):
    """An RST on each connection as soon as a byte arrives on it, or is about to be sent.

    With a :class:`Latency` beside it, the byte is late first.

    :param direction: ``"up"``: a request is reset as the server reads it, and not processed;
        ``"down"``: it is processed, and reset as its answer begins.
    """

    direction: str = UP
    takes = {"direction": DIRECTION}


@dataclass(frozen=True)
class Blackout(Fault):
    """A black hole: nothing that clients send arrives or is acknowledged, and no connect succeeds.

    What the server sends still arrives. Once it is lifted, what the clients' kernels retransmit
    arrives and is served. They do so after pauses that double, from 0.2 s (a connect: from 1 s).

    :raises Unavailable: raised by ``server.add()`` if the kernel does not permit it.
    """

    def check(self, family: int) -> None:
        blackhole.require(family)
