"""TCP keepalive, tcp(7): the application's numbers are tightened, never loosened.

The whole is compared: idle + interval x count, after which the kernel gives up.
"""

from __future__ import annotations

import _socket
import contextlib
import functools
from typing import Any, NamedTuple, Optional, Sequence

from stalepool import fallback
from stalepool.settings import Settings
from stalepool.sockets.layers import Layers, RawSocket

_MOST_PROBES = 127  # MAX_TCP_KEEPCNT in linux/tcp.h; settings.SETTINGS has it, too
PROBE_RARELY_S = 75
SPARE_PROBES = 5  #: as many as the kernel sends while the answer to one more is awaited
_IDLE = "TCP_KEEPIDLE" if hasattr(_socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"  # macOS
#: for idle time, interval and number of probes; None: the platform has no such option
_OPTIONS: Sequence[Any] = tuple(
    getattr(_socket, name, None) for name in (_IDLE, "TCP_KEEPINTVL", "TCP_KEEPCNT")
)
USER_TIMEOUT = getattr(_socket, "TCP_USER_TIMEOUT", 0)  # 0: the platform has none


class Keepalive(NamedTuple):
    """A socket's keepalive: seconds, seconds, and a number of probes."""

    idle_s: int
    interval_s: int
    probes: int

    @property
    def total_s(self) -> int:
        """Seconds of silence after which the kernel gives up."""
        return self.idle_s + self.interval_s * self.probes


def apply_policy(layers: Layers, settings: Settings) -> bool:
    """Set a connected TCP socket's keepalive as the policy says. Never yields.

    Nothing is set where the application has set TCP_USER_TIMEOUT: there a single unanswered probe
    ends the connection after that time, whatever the count.

    :returns: whether any option was set.
    :raises OSError: the kernel refuses, as on a socket that is closed.
    """
    if settings.keepalive == "off" or not layers.is_tcp or None in _OPTIONS:
        return False
    if _has_user_timeout(layers.raw):
        return False
    ours, theirs = _ours(settings), read(layers)
    present = theirs or _read(layers.raw)
    if settings.keepalive == "tighten":
        wanted = tightened(ours, theirs)
    else:
        wanted = ours if present == _system_default(layers.raw.family) else present
    if theirs == wanted:
        return False
    if wanted != present:  # the system's own may be more than can be set
        try:
            _set(layers, _OPTIONS, wanted)
        except OSError:  # a sandbox may refuse one of them
            with contextlib.suppress(OSError):
                _set(layers, _OPTIONS, present)
            raise
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
    if theirs.total_s > ours.total_s:
        return ours._replace(idle_s=min(ours.idle_s, theirs.idle_s))
    # no more probes at a short interval: while a link of this machine is down, each that cannot be
    # sent counts as a retry of the next write, which has 15 (tcp_retries2)
    if theirs.idle_s <= ours.idle_s or theirs.interval_s < ours.interval_s:
        return theirs
    probes = min((theirs.total_s - ours.idle_s) // ours.interval_s, _MOST_PROBES)
    # the last probe no earlier than theirs
    return Keepalive(theirs.total_s - ours.interval_s * probes, ours.interval_s, probes)


def read(layers: Layers) -> Optional[Keepalive]:
    """Return a socket's keepalive; None if it has none, or the platform does not show it."""
    if not layers.is_tcp or None in _OPTIONS:
        return None
    is_on = RawSocket.getsockopt(layers.raw, _socket.SOL_SOCKET, _socket.SO_KEEPALIVE)
    return _read(layers.raw) if is_on else None


def probe_every(layers: Optional[Layers], seconds: int) -> None:
    """Probe after so many seconds of silence, and then as often; a timer that runs moves, too."""
    if layers is not None:
        _set(layers, _OPTIONS[:2], (seconds, seconds))


def probe_now(layers: Layers, unanswered: int) -> None:
    """Have the kernel send a probe at its next tick: to set the idle time anew starts its timer.

    There is none near the last one (``unanswered``: probes so far), or under TCP_USER_TIMEOUT.
    """
    armed = read(layers)
    if armed and armed.probes - unanswered > SPARE_PROBES and not _has_user_timeout(layers.raw):
        _set(layers, _OPTIONS[:1], armed)


@fallback.guarded("keepalive_failed")
def switch(layers: Optional[Layers], is_on: bool) -> None:
    """Switch keepalive off for a while, in which the kernel does not give up; and on again."""
    if layers is not None and layers.raw.fileno() >= 0:
        RawSocket.setsockopt(layers.raw, _socket.SOL_SOCKET, _socket.SO_KEEPALIVE, is_on)


@fallback.guarded("keepalive_failed")
def probe_rarely(layers: Optional[Layers], settings: Settings) -> None:
    """Probe rarely, since probes are swallowed; not where the application has a total of its own.

    The interval is in force from the next probe on (measured).
    """
    # another thread may have closed it
    if layers and layers.raw.fileno() >= 0 and read(layers) == _ours(settings):
        _set(layers, _OPTIONS[1:2], (PROBE_RARELY_S,))


def _ours(settings: Settings) -> Keepalive:
    return Keepalive(
        settings.keepalive_idle_s, settings.keepalive_interval_s, settings.keepalive_count
    )


def _has_user_timeout(raw: RawSocket) -> bool:
    return bool(USER_TIMEOUT and RawSocket.getsockopt(raw, _socket.IPPROTO_TCP, USER_TIMEOUT))


def _set(layers: Layers, options: Sequence[Any], values: Sequence[int]) -> None:
    for option, value in zip(options, values):
        RawSocket.setsockopt(layers.raw, _socket.IPPROTO_TCP, option, value)


def _read(raw: RawSocket) -> Keepalive:
    return Keepalive(*(RawSocket.getsockopt(raw, _socket.IPPROTO_TCP, o) for o in _OPTIONS))


@functools.lru_cache(maxsize=None)
def _system_default(family: int) -> Keepalive:
    """Return the keepalive of an untouched socket (net.ipv4.tcp_keepalive_time); asked once."""
    with contextlib.closing(RawSocket(family, _socket.SOCK_STREAM)) as pristine:
        return _read(pristine)
