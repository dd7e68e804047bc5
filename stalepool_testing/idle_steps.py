"""Idle steps: what a fault server does to a connection between two requests.

An idle step belongs to the answer before it, and begins when that answer has been sent. To write
your own, derive from :class:`.IdleStep`.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from stalepool_testing import blackhole
from stalepool_testing.arguments import BYTES, SECONDS, SECONDS_OR_NONE, STATUS
from stalepool_testing.channel import Channel
from stalepool_testing.exchange import Exchange
from stalepool_testing.messages import answer_bytes
from stalepool_testing.script import IdleStep
from stalepool_testing.wire import Ended


@dataclass(frozen=True)
class CloseAfter(IdleStep):
    """A FIN that long after the answer, unless a request comes first (which is then served).

    :param close_notify: over TLS, end the session before the FIN.
    """

    seconds: float = 0.0
    close_notify: bool = True
    takes = {"seconds": SECONDS}

    def idle(self, channel: Channel) -> bool:
        if channel.wait_request(self.seconds):
            return False
        channel.close(self.close_notify)
        return True


@dataclass(frozen=True)
class ResetAfter(IdleStep):
    """An RST that long after the answer, unless a request comes first (which is then served)."""

    seconds: float = 0.0
    takes = {"seconds": SECONDS}

    def idle(self, channel: Channel) -> bool:
        if channel.wait_request(self.seconds):
            return False
        channel.flush()  # an RST would discard what has not been sent yet
        channel.reset()
        return True


@dataclass(frozen=True)
class FinWithin(IdleStep):
    """Closes at a random moment after the answer, whether or not a request is coming: the race.

    A request that meets it is not processed. The client sees a FIN, or an RST if its request lay
    unread before the close; over TLS without a close_notify.

    :param seconds: the latest moment; the moment is drawn from ``random.uniform``.
    :param earliest_s: the earliest moment; the same number as ``seconds`` fixes the moment.
    """

    seconds: float
    earliest_s: float = 0.0
    takes = {"seconds": SECONDS, "earliest_s": SECONDS}

    def idle(self, channel: Channel) -> bool:
        channel.pause(random.uniform(self.earliest_s, self.seconds))
        channel.close()
        return True


@dataclass(frozen=True)
class _HalfClose(IdleStep):
    """Shuts down the sending side, unless a request comes first."""

    seconds: float = 0.0
    takes = {"seconds": SECONDS}

    def idle(self, channel: Channel) -> bool:
        if channel.wait_request(self.seconds):
            return False
        channel.half_close()
        return True


@dataclass(frozen=True)
class HalfCloseAfter(_HalfClose):
    """Shuts down the sending side that long after the answer, and reads nothing more.

    The client sees a FIN. A late request is acknowledged, not processed and never answered. The
    connection ends when the client closes it or the server stops.
    """

    def afterwards(self, channel: Channel) -> None:
        channel.park()


@dataclass(frozen=True)
class HalfCloseThenProcess(_HalfClose):
    """Shuts down the sending side, then reads the late request and acts on it. Processed.

    The client sees a FIN while idle. If it sends a request all the same, the request is processed
    and not answered.
    """

    def afterwards(self, channel: Channel) -> None:
        _read_late_requests(channel, self, processed=True)


@dataclass(frozen=True)
class LingeringClose(_HalfClose):
    """Apache's close: shuts down the sending side, reads for a while, ignores it. Not processed.

    To the client it looks like :class:`HalfCloseThenProcess`.

    :param seconds: how long after the answer, unless a request comes first.
    :param linger_s: how long the server goes on reading before it closes.
    """

    linger_s: float = 2.0
    takes = {"seconds": SECONDS, "linger_s": SECONDS}

    def afterwards(self, channel: Channel) -> None:
        _read_late_requests(channel, self, processed=False, for_s=self.linger_s)


@dataclass(frozen=True)
class Surplus(IdleStep):
    """Sends an answer to no request, that long after the last answer. The connection stays open.

    A client that has not read the last answer yet may read both at once, and lose the second in a
    buffer. To be certain, send it when the client has read its answer:
    ``server.perform(Surplus(seconds=0))``.

    :param seconds: how long after the answer, unless a request comes first.
    """

    status: int = 408
    body: bytes = b""
    seconds: float = 0.05
    takes = {"status": STATUS, "body": BYTES, "seconds": SECONDS}

    def idle(self, channel: Channel) -> bool:
        if channel.wait_request(self.seconds):
            return False
        channel.send(answer_bytes(self.status, self.body))
        return True


@dataclass(frozen=True)
class BlackHole(IdleStep):
    """From now on nothing that the client sends arrives or is acknowledged. Not processed.

    A request that comes before the step is done may be acknowledged, but is not answered either. So
    wait for the step (``server.wait_idle_step()``) before you send.

    :param seconds: after this time the connection heals: what the client's kernel retransmits
        arrives, and is served. ``None``: never; the server resets the connection when it stops.
    :raises Unavailable: raised by ``FaultServer(...)`` if the kernel does not permit it.
    """

    seconds: float | None = None
    takes = {"seconds": SECONDS_OR_NONE}

    def check(self, family: int) -> None:
        blackhole.require(family)

    def idle(self, channel: Channel) -> bool:
        channel.flush()  # or its acknowledgement would be swallowed, and the answer retransmitted
        blackhole.swallow(channel.sock)
        return True

    def afterwards(self, channel: Channel) -> None:
        try:
            channel.pause(self.seconds)
        except Ended:
            # a FIN would be retransmitted for a minute: its acknowledgement is swallowed too
            channel.reset(how="stopped")
            raise
        blackhole.release(channel.sock)


def _read_late_requests(
    channel: Channel, step: IdleStep, processed: bool, for_s: float | None = None
) -> None:
    deadline = None if for_s is None else time.monotonic() + for_s
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not channel.wait_request(left):
            break
        Exchange(channel, channel.read_head(), step).read(processed=processed)
    channel.close()
