"""The closer look at a pooled connection: from every side, where the short one will not do.

That is at its first checkout, when something shows in the short look, and when it has been idle for
so long that the kernel may know more than ``poll`` tells.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, NamedTuple, Optional

from stalepool import aside, keepalive, patience, peek, runtime, stats, tcpinfo, wire
from stalepool.pooled import Pooled, is_http1, memory_of, remember
from stalepool.verdict import Verdict


class Finding(NamedTuple):
    """What a closer look found."""

    verdict: Verdict
    idle_s: Optional[float] = None  # None: not known
    died_at_age_s: Optional[float] = None  # how long it had been idle when it died


def examine(conn: Any, installation: runtime.Installation) -> Finding:
    """Look at a connection from every side, count the verdict, and trust it for a while if alive.

    Never yields, never blocks. In audit mode nothing is set, and nothing is read but by peeking.
    """
    finding = _find(conn, installation)
    pooled = memory_of(conn)
    if pooled is not None:
        counters = stats.origin(pooled.origin_name)
        counters.verdicts[finding.verdict].tick()
        if finding.died_at_age_s is not None:
            counters.count_death(finding.died_at_age_s)
    return finding


def _find(conn: Any, installation: runtime.Installation) -> Finding:
    if not is_http1(conn):
        return Finding(Verdict.UNKNOWN)
    pooled = memory_of(conn) or remember(conn, checked_at=None)
    if conn.sock is None:
        return Finding(Verdict.NO_SOCKET)
    if pooled.fork_generation != runtime.fork_generation:
        # before any look: a read through TLS here would steal the parent's records
        return Finding(Verdict.FOREIGN_PROCESS)
    the_wire = wire.wire_of(conn.sock)
    if the_wire is None:
        return _unasked(pooled)
    fd = the_wire.raw.fileno()
    if fd < 0:
        return Finding(Verdict.NO_SOCKET)
    poll = pooled.poll if fd == pooled.fd else peek.poller(the_wire.raw)
    if poll is None:
        return _unasked(pooled)

    now = monotonic()
    verdict = peek.look(the_wire, poll, may_consume=not installation.is_audit)
    is_in_use = _is_in_use(pooled, installation, now)
    info = None if verdict is Verdict.ALIVE and is_in_use else tcpinfo.silence(the_wire)
    idle_s = _idle_s(pooled, now, None if _brought_data(verdict, the_wire) else info)
    if verdict is Verdict.ALIVE:
        verdict = _verdict_on_silence(pooled, installation, info, idle_s)
    if verdict is Verdict.ALIVE:
        pooled.checked_at, pooled.idle_s = now, idle_s or 0.0
        if not is_in_use and not installation.is_audit:
            _trust(pooled, the_wire, poll, installation, is_clocked=info is not None)
        pooled.trusted_until = now + pooled.trust_s
    age_s = _age_at_death_s(verdict, the_wire, info, idle_s) if verdict.is_death else None
    return Finding(verdict, idle_s, age_s)


def _is_in_use(pooled: Pooled, installation: runtime.Installation, now: float) -> bool:
    """Whether it has been idle for so short a time that the kernel has nothing to add."""
    is_trusted = pooled.installation is installation and pooled.checked_at is not None
    return is_trusted and now - (pooled.checked_at or 0.0) < pooled.trust_s


def _unasked(pooled: Pooled) -> Finding:
    """A socket that cannot be asked; that its connection grows old is known all the same."""
    now = monotonic()
    pooled.idle_s = _idle_s(pooled, now, None) or 0.0
    pooled.checked_at = now
    return Finding(Verdict.UNKNOWN)


def _verdict_on_silence(
    pooled: Pooled,
    installation: runtime.Installation,
    info: Optional[tcpinfo.Silence],
    idle_s: Optional[float],
) -> Verdict:
    if info is not None and info.unanswered_probes:
        return Verdict.PROBE_UNANSWERED
    limits = (installation.settings.max_idle_s, pooled.announced_limit_s)
    if idle_s is not None and any(limit is not None and idle_s >= limit for limit in limits):
        return Verdict.IDLE_TOO_LONG
    return Verdict.ALIVE


def idle_s_of(conn: Any, pooled: Pooled) -> float:
    """How long a kept connection has been idle: the kernel's word, or that of the closer look."""
    the_wire = wire.wire_of(conn.sock)
    info = None if the_wire is None else tcpinfo.silence(the_wire)
    return pooled.idle_s if info is None else info.last_data_recv_ms / 1000


def _idle_s(pooled: Pooled, now: float, info: Optional[tcpinfo.Silence]) -> Optional[float]:
    if info is not None:
        return info.last_data_recv_ms / 1000
    return None if pooled.checked_at is None else now - pooled.checked_at


def _brought_data(verdict: Verdict, the_wire: wire.Wire) -> bool:
    """Whether the end was data, too: the kernel's clock of that has begun anew then.

    Over TLS a close_notify is; that a server may have left it out is of no matter here.
    """
    return verdict is Verdict.UNREAD or (verdict is Verdict.CLOSED and the_wire.version is not None)


def _age_at_death_s(
    verdict: Verdict,
    the_wire: wire.Wire,
    info: Optional[tcpinfo.Silence],
    idle_s: Optional[float],
) -> Optional[float]:
    if verdict is not Verdict.CLOSED or info is None:
        return idle_s  # for a RST the kernel keeps no time: the age when found must do
    # the FIN is the last segment that came in, so its time is known to the millisecond (measured)
    age_ms = info.last_data_recv_ms - info.last_ack_recv_ms
    if the_wire.version is not None and idle_s is not None:
        # the last data was the close_notify, unless the server left that out
        age_ms = max(age_ms, int(idle_s * 1000) - info.last_data_recv_ms)
    return max(0, age_ms) / 1000


def _trust(
    pooled: Pooled,
    the_wire: wire.Wire,
    poll: peek.Poll,
    installation: runtime.Installation,
    is_clocked: bool,
) -> None:
    """Arm keepalive, and let the short look do until a closer one can find more.

    That is until the first keepalive probe can be outstanding, or an idle limit can be reached; and
    where the kernel keeps no clock, as long as a connection is young.
    """
    settings = installation.settings
    counters = stats.origin(pooled.origin_name)
    try:
        if keepalive.arm(the_wire, settings):
            counters.armed.tick()
    except OSError as error:
        aside.stand_aside("keepalive_failed", repr(error))
    youth_s = None if is_clocked else settings.nonidempotent_max_idle_s or None
    limits = (keepalive.idle_s(the_wire), settings.max_idle_s, pooled.announced_limit_s, youth_s)
    pooled.trust_s = min([limit for limit in limits if limit is not None], default=float("inf"))
    pooled.fd = the_wire.raw.fileno()
    pooled.poll = poll
    pooled.tls = the_wire.tls
    if pooled.user_timeout_ms is None and patience.user_timeout_ms(the_wire.raw) == 0:
        pooled.user_timeout_ms = 0  # nobody has set one: ours to set
    pooled.kept = counters.verdicts[Verdict.ALIVE].ticks
    pooled.routine = None  # the next request is planned by the settings of now
    pooled.installation = installation
