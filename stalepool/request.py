"""One request: which connection it may ride, whether it is sent once more, what its answer tells.

Takes the place of ``HTTPConnectionPool._make_request``, which urllib3 1.26 and 2.x call once for
each request they send. All that happens here happens inside one of urllib3's attempts: its
``Retry``, and the counts of requests and keystoneauth1, see one attempt, whatever came of it.

Every request can go this way: it is planned, sent with care, and learnt from. Most take the short
way of :mod:`stalepool.routine`, and come here if they fail.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from time import monotonic
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from stalepool import answer, aside, checkout, patience, reconnect, replay, runtime, sending, stats
from stalepool.evidence import Evidence
from stalepool.pooled import Fresh, Pooled, Routine, is_http1, memory_of, origin_of, remember
from stalepool.sending import FoundStale
from stalepool.settings import Settings

_logger = logging.getLogger(__name__)

SWITCHING_PROTOCOLS = 101  # RFC 9110, section 15.2.2


class Call(NamedTuple):
    """One call of urllib3's ``_make_request``, and what was true when it began."""

    stock: Callable[..., Any]
    pool: Any
    conn: Any
    method: str
    url: str
    kwargs: Dict[str, Any]
    settings: Settings
    pooled: Optional[Pooled]  # what is remembered of the connection; None: it is a fresh one
    began: float  # monotonic
    handled: Optional[BaseException]  # what the caller was handling, see replay.chain()

    def send(self, **changes: Any) -> Any:
        """Let urllib3 send it."""
        kwargs = {**self.kwargs, **changes} if changes else self.kwargs
        return self.stock(self.pool, self.conn, self.method, self.url, **kwargs)

    @property
    def timeout(self) -> Any:
        return self.kwargs.get("timeout", self.pool.timeout)

    def describe(self, body_start: Optional[int]) -> replay.Request:
        given = self.kwargs.get
        return replay.describe(
            self.method, given("headers"), given("body"), body_start, given("chunked")
        )


class Plan(NamedTuple):
    """What was decided before a byte was sent; the defaults are those of a routine request."""

    body_start: Optional[int] = None
    moves: bool = False  # the connection is too old for a request that cannot be repeated
    evidence: Optional[Evidence] = None


_ROUTINE = Plan()


def make_make_request(stock: Callable[..., Any], connectionpool: Any) -> Callable[..., Any]:
    """The function that takes urllib3's place; a plain one, since every request pays for it.

    :param stock: urllib3's own.
    :param connectionpool: the module it is from: a copy made green has a green ``time``.
    """
    pause = reconnect.make_pause(connectionpool)
    names = tuple(inspect.signature(stock).parameters)[4:]

    @functools.wraps(stock)
    def _make_request(
        self: Any, conn: Any, method: str, url: str, *args: Any, **kwargs: Any
    ) -> Any:
        installation = runtime.current
        if installation is None or not is_http1(conn):
            return stock(self, conn, method, url, *args, **kwargs)
        kwargs.update(zip(names, args))
        call = Call(
            *(stock, self, conn, method, url, kwargs, installation.settings),
            *(_known(conn), monotonic(), sys.exc_info()[1]),
        )
        if installation.is_audit:
            response = call.send()
            _learn(call, response)
            return response
        return _send_with_care(call, pause)

    return _make_request


def rescue(
    stock: Callable[..., Any],
    given: Tuple[Any, Any, str, str, Dict[str, Any]],
    pooled: Pooled,
    handled: Optional[BaseException],
    error: Exception,
) -> Any:
    """A second chance for a routine request that failed, see :func:`_second_chance`.

    :param given: pool, connection, method, URL, and the rest by name.
    """
    assert pooled.installation is not None  # whose request it was, whatever is installed by now
    settings, began = pooled.installation.settings, pooled.checked_at or 0.0
    call = Call(stock, *given, settings, pooled, began, handled)
    return _second_chance(call, _ROUTINE, error)


# ----------------------------------------------------------------------------------- deciding


def _known(conn: Any) -> Optional[Pooled]:
    return None if conn.sock is None else memory_of(conn)


def _plan(call: Call, pause: Callable[[float], None]) -> Plan:
    """Decide, and tell the seams that send what they need to know."""
    conn, settings, pooled = call.conn, call.settings, call.pooled
    body = call.kwargs.get("body")
    plan = Plan(replay.position(body))
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
    # the bound of the checkout first: it costs nothing, and is low on a busy connection
    return pooled.idle_s > limit_s and checkout.idle_s_of(conn, pooled) > limit_s


def _prepare_pooled(call: Call, pooled: Pooled, plan: Plan) -> None:
    """Tell a known connection's seams what this request needs; note if the next may do without."""
    conn, kwargs = call.conn, call.kwargs
    sending.bound(conn, pooled, _user_timeout_ms(call))
    pooled.looks_again = call.settings.second_look and pooled.poll is not None
    is_like_others = kwargs.get("body") is None and call.method in replay.IDEMPOTENT
    timeout = call.timeout
    pooled.routine = _shared(call.method, timeout._read, timeout.total) if is_like_others else None


@functools.lru_cache(maxsize=64)
def _shared(*routine: Any) -> Routine:
    """One tuple for all connections that are used alike: it would be 64 bytes of each."""
    return routine


def _prepare_fresh(call: Call) -> None:
    call.conn._stalepool_fresh = Fresh(_user_timeout_ms(call))


def _user_timeout_ms(call: Call) -> int:
    body = call.kwargs.get("body")
    return patience.wanted_user_timeout_ms(
        call.settings,
        patience.is_small(body) and not call.kwargs.get("chunked"),
        call.pooled is not None and call.method in replay.METHODS[call.settings.replay],
        patience.read_limit_s(call.timeout),
    )


# -------------------------------------------------------------------------------------- doing


def _send_with_care(call: Call, pause: Callable[[float], None]) -> Any:
    plan = _ROUTINE
    try:
        plan = _plan(call, pause)
        if call.pooled is None or plan.moves:
            _prepare_fresh(call)
        else:
            _prepare_pooled(call, call.pooled, plan)
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))
    if plan.moves:
        _count(call, "moved", "nonidempotent")
        _reopen(call)
        call = call._replace(pooled=None)
    try:
        with answer.watched_for(plan.evidence, call.conn):
            response = call.send()
    except Exception as error:
        response = _second_chance(call, plan, error)
        if response is None:
            raise
    else:
        _learn(call, response)
    return response


def _second_chance(call: Call, plan: Plan, error: Exception) -> Any:
    """What is done about a request that failed: None if nothing, and the error is the caller's.

    :raises: only where not a byte of the request had been sent: then the second try is the first.
    """
    if call.pooled is not None:
        call.pooled.looks_again = False  # it may have failed before it was sent
    if isinstance(error, FoundStale):
        _count(call, "moved", "second_look")
        _log(call, "found %s before its first byte", error.verdict.value)
        _reopen(call)
        call = call._replace(pooled=None)
        _prepare_fresh(call)
        response = call.send()
        _learn(call, response)
        return response
    if not _may_replay(call, plan, error):
        return None
    was_connected = getattr(call.conn, "_has_connected_to_proxy", None)
    try:
        response = _replay(call, plan)
    except Exception as second:
        if was_connected is not None:
            # urllib3 2.x goes by it in what it makes of the first error
            call.conn._has_connected_to_proxy = was_connected
        _count(call, "replays", "failed")
        _log(call, "failed with %r, and once more with %r", error, second)
        return None
    _count(call, "replays", "ok")
    _log(call, "failed with %r, and was sent once more", error)
    return response


def _may_replay(call: Call, plan: Plan, error: Exception) -> bool:
    try:
        if plan.evidence is not None:
            plan.evidence.gather()  # over TLS it is sending that fails, with the socket still open
        errors = replay.chain(error, call.handled)
        failure = replay.Failure(
            request=call.describe(plan.body_start),
            policy=call.settings.replay,
            was_reused=call.pooled is not None,
            answer_began=answer.began(errors),
            errors=errors,
            never_read=plan.evidence is not None and plan.evidence.never_read,
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


def _replay(call: Call, plan: Plan) -> Any:
    """Send it once more, on a fresh connection, in what time is left."""
    if plan.body_start is not None:
        call.kwargs["body"].seek(plan.body_start)
    _reopen(call, _timeout_left(call))
    _prepare_fresh(call)
    response = call.send(timeout=_timeout_left(call))
    _learn(call, response)
    return response


def _reopen(call: Call, timeout: Any = None) -> None:
    """Close the connection; urllib3 opens it again when it sends, a tunnel we have it open now."""
    conn, pool = call.conn, call.pool
    conn.close()
    if call.pooled is None or not call.pooled.is_tunnel:
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


def _learn(call: Call, response: Any) -> None:
    """Remember the socket from its first answer on."""
    conn = call.conn
    try:
        fresh: Optional[Fresh] = getattr(conn, "_stalepool_fresh", None)
        if fresh is not None:
            conn._stalepool_fresh = None
        if _known(conn) is None:
            reconnect.note_answer(conn)
            if conn.sock is not None:  # None: "Connection: close"
                pooled = remember(conn, checked_at=call.began)
                pooled.user_timeout_ms = None if fresh is None else fresh.user_timeout_ms
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))
    hear(conn, response)


def hear(conn: Any, response: Any) -> None:
    """Take in what the answer says of its connection: for how long it is kept, or that it goes."""
    try:
        pooled = _known(conn)
        if pooled is None:
            return
        if "keep-alive" in response.headers:
            pooled.hear(response.headers["keep-alive"])
        if response.status == SWITCHING_PROTOCOLS:
            # somebody takes the socket over, and may stream into it: no user timeout from here on
            sending.bound(conn, pooled, 0)
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))


def _count(call: Call, group: str, name: str) -> None:
    stats.origin(_origin_name(call)).count(group, name)


def _log(call: Call, message: str, *args: object) -> None:
    aside.log(_logger, logging.DEBUG, "%s %s: " + message, call.method, _origin_name(call), *args)


def _origin_name(call: Call) -> str:
    pooled = getattr(call.conn, "_stalepool", None)
    return pooled.origin_name if isinstance(pooled, Pooled) else origin_of(call.conn)
