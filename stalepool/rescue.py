"""A request failed: whether it is sent once more, and how."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Tuple

from stalepool import answer, aside, errors, patience, replay
from stalepool.call import Call
from stalepool.examine import idle_s_of
from stalepool.learn import learn
from stalepool.plan import ROUTINE, Plan, prepare_fresh
from stalepool.pooled import QUIET, Pooled
from stalepool.sending import FoundStale


def rescue_routine(
    stock: Callable[..., Any],
    given: Tuple[Any, Any, str, str, Dict[str, Any]],
    pooled: Pooled,
    handled: Optional[BaseException],
    error: Exception,
) -> Any:
    """A second chance for a routine request that failed, see :func:`second_chance`.

    :param given: pool, connection, method, URL, and the rest by name.
    """
    assert pooled.installation is not None  # whose request it was, whatever is installed by now
    settings, began = pooled.installation.settings, pooled.checked_at or 0.0
    call = Call(stock, *given, settings, pooled, began, handled)
    return second_chance(call, ROUTINE, error)


def second_chance(call: Call, plan: Plan, error: Exception) -> Any:
    """What is done about a request that failed: None if nothing, and the error is the caller's.

    :raises: only where not a byte of the request had been sent: then the second try is the first.
    """
    if call.pooled is not None:
        call.pooled.outgoing = QUIET
    stale = _found_stale(call, error)
    if stale is not None:
        call.tally("moved", "second_look")
        idle_s = 0.0 if call.pooled is None else idle_s_of(call.conn, call.pooled)
        call.log("found %s before its first byte, idle %.3f s", stale.verdict.value, idle_s)
        reopen(call)
        call = call._replace(pooled=None)
        prepare_fresh(call)
        response = call.send()
        learn(call, response)
        return response
    if not _may_replay(call, plan, error):
        return None
    was_connected = getattr(call.conn, "_has_connected_to_proxy", None)
    try:
        response = _replay(call, plan)
    except Exception as second:
        if not errors.is_of_the_try(second):
            raise  # it came from outside: the caller's own deadline, a signal
        if was_connected is not None:
            # urllib3 2.x goes by it in what it makes of the first error
            call.conn._has_connected_to_proxy = was_connected
        call.tally("replays", "failed")
        call.log("failed with %r, and once more with %r", error, second)
        return None
    call.tally("replays", "ok")
    call.log("failed with %r, and was sent once more", error)
    return response


def _found_stale(call: Call, error: Exception) -> Optional[FoundStale]:
    """The second look's word; a connection class of an application's own may have wrapped it."""
    for link in errors.chain(error, call.handled):
        if isinstance(link, FoundStale):
            return link
    return None


def _may_replay(call: Call, plan: Plan, error: Exception) -> bool:
    try:
        if plan.evidence is not None:
            plan.evidence.gather()  # over TLS it is sending that fails, with the socket still open
        links = errors.chain(error, call.handled)
        failure = replay.Failure(
            request=call.describe(plan.body_start),
            policy=call.settings.replay,
            was_reused=call.pooled is not None,
            answer_began=answer.began(links),
            errors=links,
            never_read=plan.evidence is not None and plan.evidence.never_read,
            time_left_s=call.time_left_s(),
        )
        refusal = replay.refusal(failure)
    except Exception as surprise:
        aside.stand_aside("request_failed", repr(surprise))
        return False
    if refusal is not None:
        call.tally("replays_refused", refusal)
        call.log("failed with %r, not sent once more: %s", error, refusal)
    return refusal is None


def _replay(call: Call, plan: Plan) -> Any:
    """Send it once more, on a fresh connection, in what time is left."""
    if plan.body_start is not None:
        call.body.seek(plan.body_start)
    reopen(call, call.timeout_left())
    prepare_fresh(call)
    response = call.send(timeout=call.timeout_left())
    if call.timeout.total is None and call.conn.sock is not None:
        # what follows of the answer may take its time, as it might have the first time
        call.conn.sock.settimeout(patience.read_limit_s(call.timeout))
    learn(call, response)
    return response


def reopen(call: Call, timeout: Any = None) -> None:
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
