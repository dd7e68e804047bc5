"""What is decided before a byte of a request goes out, and told to the seams that send."""

from __future__ import annotations

import functools
from typing import Any, Callable, NamedTuple, Optional

from stalepool import patience, replay, sending
from stalepool.call import Call
from stalepool.evidence import Evidence
from stalepool.examine import idle_s_of
from stalepool.pooled import LOOK_DUE, SENDING, Fresh, Pooled, Routine
from stalepool.settings import Settings


class Plan(NamedTuple):
    """What was decided before a byte was sent; the defaults are those of a routine request."""

    body_start: Optional[int] = None
    moves: bool = False  # the connection is too old for a request that cannot be repeated
    evidence: Optional[Evidence] = None


#: nothing to decide
ROUTINE = Plan()


def decide(call: Call, pause: Callable[[float], None]) -> Plan:
    """Whether the request may ride its connection, and what is to be watched.

    :param pause: how the evidence waits, see :func:`reconnect.make_pause`.
    """
    conn, settings, pooled = call.conn, call.settings, call.pooled
    plan = Plan(replay.position(call.body))
    if (
        pooled is not None
        and call.method not in replay.IDEMPOTENT
        and not replay.is_repeatable(call.describe(plan.body_start))
    ):
        if _is_too_old(conn, pooled, settings):
            return plan._replace(moves=True)
        if settings.replay == "evidence":
            plan = plan._replace(evidence=Evidence(conn.sock, pause))
    return plan


def _is_too_old(conn: Any, pooled: Pooled, settings: Settings) -> bool:
    """Whether losing a request on this connection is likelier than a fresh one is dear.

    OkHttp, too, checks harder before it sends anything but a GET on a pooled connection.
    """
    limit_s = settings.nonidempotent_max_idle_s
    if not limit_s:
        return limit_s == 0
    if pooled.announced_s is not None:
        limit_s = min(limit_s, pooled.announced_s / 2)
    return idle_s_of(conn, pooled) > limit_s


def prepare_pooled(call: Call, pooled: Pooled, plan: Plan) -> None:
    """Tell a known connection's seams what this request needs; note if the next may do without."""
    body_size = _small_size(call)
    is_replayable = replay.is_replayable(call.describe(plan.body_start), call.settings.replay)
    timeout_ms = _user_timeout_ms(call, body_size, is_replayable)
    sending.bound(call.conn, pooled, timeout_ms, body_size or 0)
    looks = call.settings.second_look and pooled.poll is not None
    pooled.outgoing = LOOK_DUE if looks else SENDING
    is_like_others = call.body is None and call.method in replay.IDEMPOTENT
    timeout = call.timeout
    pooled.routine = _shared(call.method, timeout._read, timeout.total) if is_like_others else None


@functools.lru_cache(maxsize=64)
def _shared(*routine: Any) -> Routine:
    """One tuple for all connections that are used alike: it would be 64 bytes of each."""
    return routine


def prepare_fresh(call: Call) -> None:
    """Tell a connection that is to get a new socket what its first request needs."""
    body_size = _small_size(call)
    timeout_ms = _user_timeout_ms(call, body_size, is_replayable=False)
    call.conn._stalepool_fresh = Fresh(timeout_ms, body_size or 0)


def _small_size(call: Call) -> Optional[int]:
    return None if call.kwargs.get("chunked") else patience.small_size(call.body)


def _user_timeout_ms(call: Call, body_size: Optional[int], is_replayable: bool) -> int:
    limit_s = patience.read_limit_s(call.timeout)
    is_small = body_size is not None
    return patience.wanted_user_timeout_ms(call.settings, is_small, is_replayable, limit_s)
