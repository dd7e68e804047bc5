"""What the kernel can tell of a request that failed: was a byte of it ever read?"""

from __future__ import annotations

from time import monotonic
from typing import Any, Callable, Optional

from stalepool import tcpinfo
from stalepool.wire import wire_of

LOOK_EVERY_S = 0.001
#: how much later than two round trips the RST may come; on loopback it is there before the first
#: look, in all of 800 tries
JITTER_S = 0.002
#: on a longer way there is no evidence; the kernel says 71 minutes before it has measured any
LONGEST_WAIT_S = 0.2


class Evidence:
    """Whether the server closed before it read a byte of the request: the one sequence that tells.

    Measured on Linux 6.18, hundreds of tries each: where the server had closed fully before the
    request came, our bytes draw a RST behind its FIN. The FIN counts as one of ``bytes_received``,
    the RST as none; nothing is acknowledged (``bytes_acked``); the state ends as CLOSE. A server
    that read and acted on the request leaves another trace: it acknowledged, or it still holds the
    socket (CLOSE_WAIT), or it sent no FIN. This is evidence, not proof, and opt-in: one that sends
    its FIN, acts on a late request of one segment all the same, and at once resets leaves this very
    trace. So the RST is waited for no longer than a kernel needs to send it, which is less than
    most programs need to act.
    """

    __slots__ = ("_before", "_is_gathered", "_pause", "_wait_s", "_wire", "never_read")

    def __init__(self, sock: Any, pause: Callable[[float], None]) -> None:
        """Note the counts, before the first byte of the request.

        :param pause: sleeps, yielding where the caller's threads are green.
        """
        self._pause = pause
        self._wire = wire_of(sock)
        self._before = self._count()
        self._wait_s = self._rst_takes_s()
        self._is_gathered = False
        self.never_read = False

    def _rst_takes_s(self) -> float:
        rtt_s = None if self._wire is None else tcpinfo.min_rtt_s(self._wire)
        return min(2 * (rtt_s or 0.0) + JITTER_S, LONGEST_WAIT_S)

    def _count(self) -> Optional[tcpinfo.Carried]:
        return None if self._wire is None else tcpinfo.carried(self._wire)

    def gather(self) -> None:
        """Read them again after the request failed. Done once; a second call changes nothing.

        Where the FIN has come, waits for the RST, yielding: two round trips and some 2 ms. Anything
        else, the caller's own timeout for one, is no evidence at once. Nor is what comes late.
        """
        if self._is_gathered:
            return
        self._is_gathered = True
        waits_until = monotonic() + self._wait_s
        for _ in range(1 + int(self._wait_s / LOOK_EVERY_S)):
            after, before = self._count(), self._before
            if after is None or before is None or after.acked != before.acked:
                return
            if after.received != before.received + 1:  # no FIN, or more than that
                return
            if after.is_closed:
                self.never_read = True
                return
            self._pause(LOOK_EVERY_S)
            if monotonic() > waits_until:  # the pause may have been a long one
                return
