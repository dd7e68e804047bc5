"""One request: which connection it may ride, whether it is sent once more, what its answer tells.

Takes the place of ``HTTPConnectionPool._make_request``, which urllib3 1.26 and 2.x call once for
each request they send. All that happens here happens inside one of urllib3's attempts: its
``Retry``, and the counts of requests and keystoneauth1, see one attempt, whatever came of it.
"""

from __future__ import annotations

import functools
import logging
import sys
from time import monotonic
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from stalepool import aside, checkout, patience, reconnect, replay, runtime, stats
from stalepool.attempt import (
    Attempt,
    Evidence,
    FoundStale,
    attach,
    detach,
)
from stalepool.pooled import Pooled, is_http1, memory_of, origin_of, remember
from stalepool.settings import Settings

_logger = logging.getLogger(__name__)


class Call(NamedTuple):
    """One call of urllib3's ``_make_request``."""

    stock: Callable[..., Any]
    pool: Any
    conn: Any
    method: str
    url: str
    args: Tuple[Any, ...]
    kwargs: Dict[str, Any]
    began: float  # monotonic
    handled: Optional[BaseException]  # what the caller is handling: none of this request's errors

    def send(self, attempt: Attempt, **changes: Any) -> Any:
        """Let urllib3 send it, with the attempt where our seams find it."""
        attach(self.conn, attempt)
        try:
            kwargs = {**self.kwargs, **changes} if changes else self.kwargs
            return self.stock(self.pool, self.conn, self.method, self.url, *self.args, **kwargs)
        finally:
            detach(self.conn, attempt)

    @property
    def timeout(self) -> Any:
        return self.kwargs.get("timeout", self.pool.timeout)

    def describe(self, body_start: Optional[int]) -> replay.Request:
        given = self.kwargs.get
        return replay.describe(
            self.method, given("headers"), given("body"), body_start, given("chunked")
        )


class Plan(NamedTuple):
    """What was decided before a byte was sent."""

    attempt: Attempt
    body_start: Optional[int]
    is_tunnel: bool  # asked now: urllib3 2.x forgets the tunnel when the connection dies
    moves: bool  # the pooled connection is too old for a request that cannot be repeated


def make_make_request(stock: Callable[..., Any], connectionpool: Any) -> Callable[..., Any]:
    """The function that takes urllib3's place; a plain one, since every request pays for it.

    :param stock: urllib3's own.
    :param connectionpool: the module it is from: a copy made green has a green ``time``.
    """
    pause = reconnect.make_pause(connectionpool)

    @functools.wraps(stock)
    def _make_request(
        self: Any, conn: Any, method: str, url: str, *args: Any, **kwargs: Any
    ) -> Any:
        installation = runtime.current
        if installation is None or not is_http1(conn):
            return stock(self, conn, method, url, *args, **kwargs)
        call = Call(stock, self, conn, method, url, args, kwargs, monotonic(), sys.exc_info()[1])
        plan = None if installation.is_audit else _plan_or_none(call, installation.settings, pause)
        if plan is None:
            response = stock(self, conn, method, url, *args, **kwargs)
        else:
            response = _carry_out(call, plan, installation.settings)
        try:
            _note(call, response, plan)
        except Exception as error:
            aside.stand_aside("request_failed", repr(error))
        return response

    return _make_request


# ----------------------------------------------------------------------------------- deciding


def _plan_or_none(call: Call, settings: Settings, pause: Callable[[float], None]) -> Optional[Plan]:
    try:
        return _plan(call, settings, pause)
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))
        return None


def _plan(call: Call, settings: Settings, pause: Callable[[float], None]) -> Plan:
    conn, kwargs = call.conn, call.kwargs
    pooled = None if conn.sock is None else memory_of(conn)
    body = kwargs.get("body")
    body_start = replay.position(body)
    repeats = call.method in replay.METHODS[settings.replay]
    user_timeout_ms = patience.wanted_user_timeout_ms(
        settings,
        patience.is_small(body) and not kwargs.get("chunked"),
        repeats and pooled is not None,
        patience.read_limit_s(call.timeout),
    )
    moves, evidence = False, None
    if (
        pooled is not None
        and call.method not in replay.IDEMPOTENT
        and not replay.is_repeatable(call.describe(body_start))
    ):
        moves = _is_too_old(conn, pooled, settings)
        evidence = Evidence(pause) if settings.replay == "evidence" else None
    return Plan(
        Attempt(None if moves else pooled, settings.second_look, user_timeout_ms, evidence),
        body_start,
        getattr(conn, "_tunnel_host", None) is not None,
        moves,
    )


def _is_too_old(conn: Any, pooled: Pooled, settings: Settings) -> bool:
    """Whether losing a request on this connection is likelier than a fresh one is dear.

    OkHttp, too, checks harder before it sends anything but a GET on a pooled connection.
    """
    limit_s = settings.nonidempotent_max_idle_s
    if not limit_s:
        return limit_s == 0
    if pooled.announced_s is not None:
        limit_s = min(limit_s, pooled.announced_s / 2)
    # the bound of the checkout first: it costs nothing, and is low on a busy connection
    return pooled.idle_s > limit_s and checkout.idle_s_of(conn, pooled) > limit_s


# -------------------------------------------------------------------------------------- doing


def _carry_out(call: Call, plan: Plan, settings: Settings) -> Any:
    if plan.moves:
        _count(call, "moved", "nonidempotent")
        _reopen(call, plan)
    first = None
    try:
        return call.send(plan.attempt)
    except FoundStale as stale:
        _count(call, "moved", "second_look")
        _log(call, "found %s before its first byte", stale.verdict.value)
    except Exception as error:
        if not _may_replay(call, plan, settings, error):
            raise
        first = error
    if first is None:
        _reopen(call, plan)
        return call.send(plan.attempt.on_a_fresh_connection())
    context = first.__context__
    try:
        return _replay(call, plan, first)
    finally:
        first.__context__ = context  # which raising it again from here may have replaced
        del first, context  # their tracebacks hold this frame, which would hold the socket


def _may_replay(call: Call, plan: Plan, settings: Settings, error: Exception) -> bool:
    try:
        attempt = plan.attempt
        failure = replay.Failure(
            request=call.describe(plan.body_start),
            policy=settings.replay,
            was_reused=attempt.pooled is not None,
            answer_began=attempt.answer_began or not attempt.was_watched,
            errors=replay.chain(error, call.handled),
            never_read=attempt.evidence is not None and attempt.evidence.never_read,
            time_left_s=_time_left_s(call),
        )
        refusal = replay.refusal(failure)
    except Exception as surprise:
        aside.stand_aside("request_failed", repr(surprise))
        return False
    if refusal is not None:
        _count(call, "replays_refused", refusal)
        _log(call, "failed with %r, not sent once more: %s", error, refusal)
    return refusal is None


def _replay(call: Call, plan: Plan, first: Exception) -> Any:
    """Send it once more, on a fresh connection, in what time is left; or raise the first error."""
    try:
        if plan.body_start is not None:
            call.kwargs["body"].seek(plan.body_start)
        _reopen(call, plan, _timeout_left(call))
        response = call.send(plan.attempt.on_a_fresh_connection(), timeout=_timeout_left(call))
    except Exception as second:
        _count(call, "replays", "failed")
        _log(call, "failed with %r, and once more with %r", first, second)
    else:
        _count(call, "replays", "ok")
        _log(call, "failed with %r, and was sent once more", first)
        return response
    raise first


def _reopen(call: Call, plan: Plan, timeout: Any = None) -> None:
    """Close the connection; urllib3 opens it again when it sends, a tunnel we have it open now."""
    conn, pool = call.conn, call.pool
    conn.close()
    if not plan.is_tunnel:
        return
    if timeout is not None:
        conn.timeout = timeout.connect_timeout  # on 2.x it is the read timeout by now
    try:
        pool._prepare_proxy(conn)
    except OSError as error:  # as urlopen() does around the same call
        pool._raise_timeout(err=error, url=pool.proxy.url, timeout_value=conn.timeout)
        raise


def _timeout_left(call: Call) -> Any:
    return patience.shortened(call.timeout, _time_left_s(call))


def _time_left_s(call: Call) -> Optional[float]:
    """Of what the first attempt was allowed to take; None without a limit."""
    limit_s = patience.read_limit_s(call.timeout)
    return None if limit_s is None else limit_s - (monotonic() - call.began)


# ----------------------------------------------------------------------------------- learning


def _note(call: Call, response: Any, plan: Optional[Plan]) -> None:
    """Remember the socket from its first answer on, and how long its server keeps it."""
    conn = call.conn
    pooled = None if conn.sock is None else memory_of(conn)
    if pooled is None:
        reconnect.note_answer(conn)
        if conn.sock is None:  # "Connection: close"
            return
        pooled = remember(conn, checked_at=call.began)
        if plan is not None:
            pooled.user_timeout_ms = plan.attempt.user_timeout_ms
    announced = response.headers.get("keep-alive")
    if announced is not None and announced != pooled.announced:
        pooled.hear(announced)


def _count(call: Call, group: str, name: str) -> None:
    stats.origin(_origin_name(call)).count(group, name)


def _log(call: Call, message: str, *args: object) -> None:
    aside.log(_logger, logging.DEBUG, "%s %s: " + message, call.method, _origin_name(call), *args)


def _origin_name(call: Call) -> str:
    pooled = getattr(call.conn, "_stalepool", None)
    return pooled.origin_name if isinstance(pooled, Pooled) else origin_of(call.conn)
