"""What the kernel can tell of a request that failed: was a byte of it ever read?"""

from __future__ import annotations

from typing import Any, Callable, Optional

from stalepool import peek
from stalepool.wire import wire_of


class Evidence:
    """Whether the server closed before it read a byte of the request: the one sequence that tells.

    Measured on Linux 6.18, hundreds of tries each: where the server had closed fully before the
    request came, our bytes draw a RST behind its FIN. The FIN counts as one of ``bytes_received``,
    the RST as none; nothing is acknowledged (``bytes_acked``); the state ends as CLOSE. A server
    that read and acted on the request leaves another trace: it acknowledged, or it still holds the
    socket (CLOSE_WAIT), or it sent no FIN. This is evidence, not proof, and opt-in: one that sends
    its FIN, acts on a late request of one segment all the same, and then resets within 40 ms leaves
    this very trace.
    """

    __slots__ = ("_before", "_pause", "_wire", "never_read")

    def __init__(self, sock: Any, pause: Callable[[float], None]) -> None:
        """Note the counts, before the first byte of the request."""
        self._pause = pause
        self._wire = wire_of(sock)
        self._before = self._count()
        self.never_read = False

    def _count(self) -> Optional[peek.TcpBytes]:
        return None if self._wire is None else peek.tcp_bytes(self._wire)

    def gather(self) -> None:
        """Read them again after the connection ended. Waits for the RST for 40 ms, yielding.

        Changes nothing if the socket has been closed meanwhile.
        """
        for _ in range(20):
            after = self._count()
            if after is None or self._before is None or after.acked != self._before.acked:
                return
            if after.is_closed:
                self.never_read = after.received == self._before.received + 1
                return
            self._pause(0.002)
