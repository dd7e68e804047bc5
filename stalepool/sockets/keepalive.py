"""TCP keepalive on a socket: the application's numbers are tightened, never loosened.

The whole is compared: idle + interval x count, after which the kernel gives up. The options are
those of tcp(7); on a platform that lacks one nothing is set.
"""

from __future__ import annotations

import _socket
import functools
from typing import NamedTuple, Optional

from stalepool.settings import Settings
from stalepool.sockets.layers import Layers, RawSocket

_MOST_PROBES = 127  # MAX_TCP_KEEPCNT in linux/tcp.h

_OPTIONS = tuple(
    getattr(_socket, name, None)
    for name in (
        "TCP_KEEPIDLE" if hasattr(_socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE",  # macOS
        "TCP_KEEPINTVL",
        "TCP_KEEPCNT",
    )
)
_USER_TIMEOUT = getattr(_socket, "TCP_USER_TIMEOUT", 0)


class Keepalive(NamedTuple):
    """A socket's keepalive: seconds, seconds, and a number of probes."""

    idle_s: int
    interval_s: int
    probes: int

    @property
    def total_s(self) -> int:
        """Seconds of silence after which the kernel gives up."""
        return self.idle_s + self.interval_s * self.probes


def arm(layers: Layers, settings: Settings) -> bool:
    """Set a connected TCP socket's keepalive as the policy says; nothing on any other socket.

    Nothing either where the application has set TCP_USER_TIMEOUT: then a single unanswered probe
    ends the connection after that time, whatever the count (tcp(7)). Never yields.

    :returns: whether any option was set.
    :raises OSError: the kernel refuses, as on a socket that is closed.
    """
    if settings.keepalive == "off" or not layers.is_tcp or None in _OPTIONS:
        return False
    if _USER_TIMEOUT and RawSocket.getsockopt(layers.raw, _socket.IPPROTO_TCP, _USER_TIMEOUT):
        return False
    ours = Keepalive(
        settings.keepalive_idle_s, settings.keepalive_interval_s, settings.keepalive_count
    )
    present = theirs = read(layers)
    if settings.keepalive == "tighten":
        wanted = tightened(ours, theirs)
    else:
        present = theirs or _read(layers.raw)
        wanted = ours if present == _system_default(layers.raw.family) else present
    if theirs == wanted:
        return False
    for option, value in zip(_OPTIONS, wanted if wanted != present else ()):
        RawSocket.setsockopt(layers.raw, _socket.IPPROTO_TCP, option, value)  # type: ignore[arg-type]
    RawSocket.setsockopt(layers.raw, _socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    return True


def tightened(ours: Keepalive, theirs: Optional[Keepalive]) -> Keepalive:
    """Return a keepalive that gives up after the shorter total, and begins to probe early.

    >>> tightened(Keepalive(5, 3, 42), Keepalive(60, 15, 4))  # keystoneauth1's, 120 s
    Keepalive(idle_s=6, interval_s=3, probes=38)

    :param theirs: the application's; None where it has none.
    """
    if theirs is None:
        return ours
    total_s = min(ours.total_s, theirs.total_s)
    if theirs.idle_s <= ours.idle_s and theirs.total_s == total_s:
        return theirs
    idle_s = min(ours.idle_s, theirs.idle_s)
    interval_s = min(ours.interval_s, theirs.interval_s)
    probes = min((total_s - idle_s) // interval_s, _MOST_PROBES)
    if total_s == theirs.total_s:  # the last probe no earlier than theirs
        idle_s = total_s - interval_s * probes
    return Keepalive(idle_s, interval_s, probes)


def read(layers: Layers) -> Optional[Keepalive]:
    """Return a socket's keepalive; None if it has none, or the platform does not show it."""
    if not layers.is_tcp or None in _OPTIONS:
        return None
    is_on = RawSocket.getsockopt(layers.raw, _socket.SOL_SOCKET, _socket.SO_KEEPALIVE)
    return _read(layers.raw) if is_on else None


def probe_every(layers: Optional[Layers], seconds: int, first_too: bool = False) -> None:
    """Change the time between two probes; in force from the next probe on (measured).

    :param first_too: change the silence before the first one; a timer that runs moves with it.
    """
    if layers is None:
        return
    RawSocket.setsockopt(layers.raw, _socket.IPPROTO_TCP, _OPTIONS[1], seconds)  # type: ignore[arg-type]
    if first_too:
        RawSocket.setsockopt(layers.raw, _socket.IPPROTO_TCP, _OPTIONS[0], seconds)  # type: ignore[arg-type]


def _read(raw: RawSocket) -> Keepalive:
    return Keepalive(
        *(RawSocket.getsockopt(raw, _socket.IPPROTO_TCP, option) for option in _OPTIONS)  # type: ignore[arg-type]
    )


@functools.lru_cache(maxsize=None)
def _system_default(family: int) -> Keepalive:
    """Return the keepalive of an untouched socket (net.ipv4.tcp_keepalive_time); asked once."""
    pristine = RawSocket(family, _socket.SOCK_STREAM)
    try:
        return _read(pristine)
    finally:
        pristine.close()
