"""TCP keepalive on a socket: filled in, tightened, never loosened.

A probe that goes unanswered is how a silent drop is found while the connection is idle
(:data:`stalepool.verdict.Verdict.PROBE_UNANSWERED`), and a keepalive is what keeps a firewall's or
NAT's entry alive in the first place. The options are those of tcp(7); platforms that lack one, or
name it otherwise, get what they have.
"""

from __future__ import annotations

import _socket
from typing import Dict, List, Optional, Tuple

from stalepool.settings import Settings
from stalepool.wire import RawSocket, Wire

#: the setting that holds our value -> the option, by the names platforms know it under
_OPTIONS = {
    "keepalive_idle_s": ("TCP_KEEPIDLE", "TCP_KEEPALIVE"),  # the second on macOS
    "keepalive_interval_s": ("TCP_KEEPINTVL",),
    "keepalive_count": ("TCP_KEEPCNT",),
}


def _known_options() -> List[Tuple[str, int]]:
    known = []
    for setting, names in _OPTIONS.items():
        numbers = [getattr(_socket, name) for name in names if hasattr(_socket, name)]
        if numbers:
            known.append((setting, numbers[0]))
    return known


_KNOWN_OPTIONS = _known_options()


def arm(wire: Wire, settings: Settings) -> bool:
    """Bring a connected socket's keepalive in line with the policy.

    Never yields. Costs four ``getsockopt`` where all is as it should be already.

    :param wire: the socket, taken apart; one that is not TCP is left alone.
    :param settings: the policy and its numbers.
    :returns: whether any option was set.
    :raises OSError: where the kernel refuses, as on a socket that is closed.
    """
    policy = settings.keepalive
    if policy == "off" or not wire.is_tcp:
        return False
    raw, changed = wire.raw, False
    if not raw.getsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE):
        raw.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        changed = True
    for setting, option in _KNOWN_OPTIONS:
        ours = getattr(settings, setting)
        theirs = raw.getsockopt(_socket.IPPROTO_TCP, option)
        if wanted(policy, ours, theirs, _system_default(raw.family, option)) != theirs:
            raw.setsockopt(_socket.IPPROTO_TCP, option, ours)
            changed = True
    return changed


def wanted(policy: str, ours: int, theirs: int, system_default: int) -> int:
    """The value an option should have: ours or theirs.

    ``respect`` takes a value that differs from the system's default for the application's wish;
    ``tighten`` keeps whichever is stricter; ``force`` always takes ours.
    """
    if policy == "force":
        return ours
    if policy == "respect":
        return ours if theirs == system_default else theirs
    return min(ours, theirs)


def idle_s(wire: Wire) -> Optional[float]:
    """Seconds of silence after which this socket's first probe goes out; None if none ever does."""
    option = dict(_KNOWN_OPTIONS).get("keepalive_idle_s")
    if option is None or not wire.is_tcp:
        return None
    if not wire.raw.getsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE):
        return None
    return wire.raw.getsockopt(_socket.IPPROTO_TCP, option)


_defaults: Dict[Tuple[int, int], int] = {}


def _system_default(family: int, option: int) -> int:
    """What a socket nobody has touched has, such as net.ipv4.tcp_keepalive_time; asked once."""
    key = (family, option)
    if key not in _defaults:
        pristine = RawSocket(family, _socket.SOCK_STREAM)
        try:
            _defaults[key] = pristine.getsockopt(_socket.IPPROTO_TCP, option)
        finally:
            pristine.close()
    return _defaults[key]
