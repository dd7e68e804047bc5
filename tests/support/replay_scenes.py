"""The table of what must hold: situations a request on a reused connection can get into.

Runs in whatever world it is imported: native threads, or green ones once ``worlds.enter()`` has
patched. As a program it takes cases as JSON, and prints what came of them.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from pools import DEFAULTS, shim, stock
from replay_routes import FOR_EVER_MS, ROUTES, route_to
from replay_tools import (
    BODIES,
    ECHO,
    IDEMPOTENT,
    METHODS,
    after_checkout,
    have,
    kind_of,
    prime,
    send,
    side_by_side,
    wait_for,
)
from stalepool_testing import (
    TLS,
    AnswerStep,
    Close,
    CloseAfter,
    Exchange,
    FaultServer,
    HalfAnswer,
    HalfStatusLine,
    ProcessThenClose,
    ProcessThenReset,
    Reset,
    ResetAfter,
    Silence,
    kernel,
)

TLS_VERSIONS = ("plain", "TLSv1.2", "TLSv1.3")


class Case(NamedTuple):
    situation: str
    method: str
    tls: str
    route: str
    way: str


class Result(NamedTuple):
    """What came of it, as plain data."""

    said: str  # the answer's status, or the kind of the error
    is_own_answer: bool
    arrivals: int
    processed: int


@dataclass(frozen=True)
class CutTunnel(AnswerStep):
    """The request has arrived, and the proxy ends the tunnel it came through. Not processed."""

    keeps_connection = False
    reset: bool = False

    def answer(self, exchange: Exchange) -> None:
        exchange.channel.throw_away()
        CUT[id(exchange.channel.journal)](self.reset)
        exchange.channel.park()


#: by the server's journal: what has the proxy in front of it cut
CUT: Dict[int, Callable[[bool], Any]] = {}


class Situation(NamedTuple):
    """A row of the table.

    ``answer``: what the request meets at the server. ``before``: what happens to the connection
    after the check at checkout, before the first byte. ``is_processed``: by the first try.
    ``sent_again``: whether a request that may be is. ``default``: what each later one meets.
    ``error``: as the caller sees it, in stock and where nothing helps.
    """

    answer: AnswerStep = ECHO
    before: Optional[Tuple[Any, int]] = None
    is_processed: bool = False
    sent_again: bool = True
    default: AnswerStep = ECHO
    error: str = "connection"
    routes: Sequence[str] = ROUTES
    needs_tls: bool = False
    timeout_s: float = 10.0


NEAR = ("direct", "proxy")  # haproxy answers these itself, or cannot be told to do them

SITUATIONS: Dict[str, Situation] = {
    "FIN before it": Situation(before=(CloseAfter(), kernel.POLLRDHUP)),
    "RST before it": Situation(before=(ResetAfter(), kernel.POLLRDHUP), routes=NEAR),
    "FIN as it arrives": Situation(Close()),
    "RST as it arrives": Situation(Reset()),
    "processed, then FIN": Situation(ProcessThenClose(), is_processed=True),
    "processed, then RST": Situation(ProcessThenReset(), is_processed=True),
    "half an answer": Situation(
        HalfAnswer(), is_processed=True, sent_again=False, error="half an answer"
    ),
    "half a status line": Situation(
        HalfStatusLine(),
        is_processed=True,
        sent_again=False,
        error="half an answer",
        routes=NEAR,
    ),
    "the caller's timeout": Situation(
        Silence(), is_processed=True, sent_again=False, error="read timeout", timeout_s=2.0
    ),
    "the fresh one, too: FIN": Situation(Close(), default=Close()),
    "the fresh one, too: RST": Situation(Reset(), default=Reset()),
    "the proxy, with a FIN": Situation(CutTunnel(), routes=("proxy",), needs_tls=True),
    "the proxy, with an RST": Situation(CutTunnel(reset=True), routes=("proxy",), needs_tls=True),
}

#: how often the connection has answered before: at the first checkout the check is a full one
WAYS = {"full check": 1, "fast check": 3}

FACTORS = (tuple(SITUATIONS), METHODS, TLS_VERSIONS, ROUTES, tuple(WAYS))
#: of two methods that no rule tells apart, one
FEWER_FACTORS = (FACTORS[0], ("GET", "PUT", "POST"), *FACTORS[2:])


def is_possible(situation: str, method: str, tls: str, route: str, way: str) -> bool:
    row = SITUATIONS[situation]
    return (
        route in row.routes
        and not (row.needs_tls and tls == "plain")
        # haproxy answers 502 for a server that failed, and resets if the body is still to come
        and not (route == "haproxy" and method in BODIES and row.default is not ECHO)
    )


def expected(case: Case, has_shim: bool) -> Result:
    row = SITUATIONS[case.situation]
    if not has_shim:
        return Result(row.error, False, 0 if row.before else 1, int(row.is_processed))
    if row.before:
        return Result("200", True, 1, 1)
    if not (row.sent_again and case.method in IDEMPOTENT):
        return Result(row.error, False, 1, int(row.is_processed))
    if row.default is ECHO:
        return Result("200", True, 2, 1 + row.is_processed)
    # on a connection that is fresh to haproxy, it answers for a server that does not
    said = "502" if case.route == "haproxy" else row.error
    return Result(said, False, 2, 0)


def play(case: Case, haproxy: str) -> Result:
    """Bring a request into its situation."""
    row, times = SITUATIONS[case.situation], WAYS[case.way]
    tls = None if case.tls == "plain" else TLS(case.tls)
    servers_tls = None if case.route == "haproxy" else tls
    # behind haproxy nobody else ends the client's connection: its own timeout does
    keeps_ms = 200 if row.before and case.route == "haproxy" else FOR_EVER_MS
    with FaultServer(
        [ECHO] * times + [row.answer], tls=servers_tls, default=row.default
    ) as server, route_to(server, case.route, tls, haproxy, keeps_ms) as route, route.make_pool(
        row.timeout_s
    ) as pool:
        if route.cut is not None:
            CUT[id(server.journal)] = route.cut
        prime(pool, times=times)
        if row.before is not None:
            step, events = row.before
            act = have(server, step, events) if case.route != "haproxy" else wait_for(events)
            after_checkout(pool, act)
        outcome = send(server, pool, case.method)
    said = str(outcome.status or kind_of(outcome.error))
    return Result(said, outcome.is_own_answer, outcome.arrivals, outcome.processed)


def play_all(cases: Sequence[Case], has_shim: bool, haproxy: str) -> List[Result]:
    """What comes of cases, side by side; with the shim at its defaults, or without it."""
    with shim(**DEFAULTS) if has_shim else stock():
        return side_by_side([functools.partial(play, case, haproxy) for case in cases])


def main() -> None:
    given = json.load(sys.stdin)
    cases = [Case(*case) for case in given["cases"]]
    print(json.dumps(play_all(cases, given["has_shim"], given["haproxy"])))
