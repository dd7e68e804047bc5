"""One request: which connection it may ride, whether it is sent once more, what its answer tells.

Takes the place of ``HTTPConnectionPool._make_request``, which urllib3 1.26 and 2.x call once for
each request they send. All that happens here happens inside one of urllib3's attempts: its
``Retry``, and the counts of requests and keystoneauth1, see one attempt, whatever came of it.

Every request can go this way: it is planned, sent with care, and learnt from. Most take the short
way of :mod:`stalepool.routine`.
"""

from __future__ import annotations

import functools
import inspect
from time import monotonic
from typing import Any, Callable, Optional

from stalepool import answer, aside, reconnect, runtime
from stalepool.call import Call
from stalepool.errors import being_handled
from stalepool.learn import learn
from stalepool.plan import ROUTINE, decide, prepare_fresh, prepare_pooled
from stalepool.pooled import Pooled, is_http1, known
from stalepool.rescue import reopen, second_chance


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
            *(_reopenable(self, conn), monotonic(), being_handled()),
        )
        if installation.is_audit:
            response = call.send()
            learn(call, response)
            return response
        return _send_with_care(call, pause)

    return _make_request


def _reopenable(pool: Any, conn: Any) -> Optional[Pooled]:
    """What is remembered of a connection, if we could open it anew.

    A tunnel that was set up past the pool (``set_tunnel()`` by an application) only it could.
    """
    pooled = known(conn)
    return None if pooled is not None and pooled.is_tunnel and pool.proxy is None else pooled


def _send_with_care(call: Call, pause: Callable[[float], None]) -> Any:
    plan = ROUTINE
    try:
        plan = decide(call, pause)
        if call.pooled is None or plan.moves:
            prepare_fresh(call)
        else:
            prepare_pooled(call, call.pooled, plan)
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))
    if plan.moves:
        call.tally("moved", "nonidempotent")
        call.log("takes a fresh connection, this one was idle for too long for it")
        reopen(call)
        call = call._replace(pooled=None)
    try:
        with answer.watched_for(plan.evidence, call.conn):
            response = call.send()
    except Exception as error:
        response = second_chance(call, plan, error)
        if response is None:
            raise
    else:
        learn(call, response)
    return response
