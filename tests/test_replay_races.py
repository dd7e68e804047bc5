"""A connection that dies after the look at checkout: the second look, and the race itself."""

from __future__ import annotations

import functools
import random
import time
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional

import pytest
import urllib3

import stalepool
from pools import counters, pooled_connection, shim, stock
from replay_pairs import pairwise
from replay_routes import ROUTES, route_to
from replay_scenes import TLS_VERSIONS
from replay_tools import (
    ECHO,
    IDEMPOTENT,
    METHODS,
    Outcome,
    after_checkout,
    have,
    kind_of,
    links,
    prime,
    reused,
    send,
    side_by_side,
    totals,
)
from stalepool.testing import (
    TLS,
    Close,
    CloseAfter,
    ConnectProxy,
    FaultServer,
    FinWithin,
    HalfCloseAfter,
    IdleStep,
    Request,
    Reset,
    ResetAfter,
    Surplus,
    kernel,
)
from stalepool.testing.script import StepOrSteps
from worlds import WITH_TESTS

shim_with_second_look = functools.partial(shim, second_look=True)

# -- the second look -----------------------------------------------------------------------------


class Death(NamedTuple):
    """What happens to the connection between the look at checkout and the request's first byte.

    ``events``: what shows that it has arrived. ``without``: what stock makes of it.
    """

    step: IdleStep
    events: int
    tls: Optional[str] = None
    without: str = "connection"


DEATHS: Dict[str, Death] = {
    "FIN": Death(CloseAfter(), kernel.POLLRDHUP),
    "RST": Death(ResetAfter(), 0),
    "half-closed": Death(HalfCloseAfter(), kernel.POLLRDHUP),
    "408": Death(Surplus(408, seconds=0), kernel.POLLIN, without="408"),
    "poison": Death(Surplus(200, b"poison", seconds=0), kernel.POLLIN, without="200"),
    "FIN, TLS 1.2": Death(CloseAfter(close_notify=False), kernel.POLLRDHUP, "TLSv1.2"),
    "FIN, TLS 1.3": Death(CloseAfter(close_notify=False), kernel.POLLRDHUP, "TLSv1.3"),
    "close_notify, TLS 1.2": Death(CloseAfter(), kernel.POLLRDHUP, "TLSv1.2"),
    "close_notify, TLS 1.3": Death(CloseAfter(), kernel.POLLRDHUP, "TLSv1.3"),
    "RST, TLS 1.3": Death(ResetAfter(), 0, "TLSv1.3"),
    "408, TLS 1.3": Death(Surplus(408, seconds=0), kernel.POLLIN, "TLSv1.3", "408"),
}


def once(body: bytes) -> Any:
    yield body


def meet(death: Death, method: str, when: Callable[..., None], times: int = 1) -> Outcome:
    tls = None if death.tls is None else TLS(death.tls)
    with reused(tls=tls, method=method, times=times) as (server, pool):
        when(pool, have(server, death.step, death.events))
        outcome = send(server, pool, method)
        if outcome.status == 200 and outcome.is_own_answer:
            assert counters(server)["moved"] == {"second_look": 1}
        return outcome


def while_its_head_is_made(pool: Any, act: Callable[[Any], None]) -> None:
    """As late as urllib3 lets anybody in: the headers are being put together."""
    conn = pooled_connection(pool)
    stock_putheader, acts = conn.putheader, [act]

    def putheader(*args: Any) -> None:
        if acts:
            acts.pop()(conn)
        stock_putheader(*args)

    conn.putheader = putheader


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("when", [after_checkout, while_its_head_is_made])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", DEATHS)
def test_the_second_look(name, method, when, times):
    """Nothing has been sent yet, so every method goes out on a fresh connection, once."""
    with shim_with_second_look():
        outcome = meet(DEATHS[name], method, when, times)
        assert outcome[:3] == (200, True, None), outcome
        assert (outcome.arrivals, outcome.processed) == (1, 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", DEATHS)
def test_without_the_second_look(name, method):
    """Stock sends the request into the dead connection, or takes what lies there for its answer."""
    death = DEATHS[name]
    for who in (stock, shim):
        with who():
            outcome = meet(death, method, after_checkout)
            assert not outcome.is_own_answer
            assert str(outcome.status or kind_of(outcome.error)) == death.without


@pytest.mark.parametrize(
    "options",
    [
        {"body": once(b"once"), "headers": {"Content-Length": "4"}},
        {"body": once(b"once")},
        {"body": [b"on", b"ce"], "headers": {"Content-Length": "4"}},
        {"body": b"once", "chunked": True},
        {"body": b"once", "headers": {"Expect": "100-continue"}},
        {"body": b"once", "headers": {"If-Match": "*"}},
        {"body": b"once" * 100_000},
    ],
    ids=["generator with a length", "generator", "list", "chunked", "Expect", "If-Match", "large"],
)
def test_whatever_it_carries(options):
    """What could not be sent twice has not been sent at all."""
    options = {**options, "headers": dict(options.get("headers", {}))}
    with shim_with_second_look(), reused() as (server, pool):
        after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
        outcome = send(server, pool, "POST", **options)
        assert outcome[:3] == (200, True, None), outcome
        assert (outcome.arrivals, outcome.processed) == (1, 1)
        assert server.journal[-1].body in (b"once", b"once" * 100_000)


def test_a_generator_goes_out_whole():
    with shim_with_second_look(), reused() as (server, pool):
        for body in (b"first", b"second"):
            after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
            assert send(server, pool, "PUT", body=once(body)).status == 200
            assert server.journal[-1].body == body
        assert counters(server)["moved"] == {"second_look": 2}


@pytest.mark.parametrize("step", [Close(), Reset()], ids=repr)
def test_it_looks_before_the_first_byte_and_never_again(step):
    """Between head and body would be too late: the server has seen the head."""
    with shim_with_second_look(), reused(step) as (server, pool):

        def body() -> Iterator[bytes]:
            kernel.wait_readable(conn.sock)
            yield b"pay 10"

        conn = pooled_connection(pool)
        outcome = send(server, pool, "POST", body=body(), headers={"Content-Length": "6"})
        assert kind_of(outcome.error) == "connection"
        assert outcome.arrivals == 1
        assert counters(server)["moved"] == {}


def test_a_connection_that_was_replaced_meanwhile():
    """What is remembered is of a socket, and says nothing of another one."""

    def replace(conn: Any) -> None:
        old, conn.sock = conn.sock, None
        conn.connect()
        old.close()

    for who in (stock, shim_with_second_look):
        with who(), reused() as (server, pool):
            after_checkout(pool, replace)
            assert send(server, pool, "POST")[:3] == (200, True, None)
            assert len(server.journal.connections) == 2
            if who is not stock:
                assert counters(server)["moved"] == {}


@pytest.mark.parametrize("method", IDEMPOTENT)
@pytest.mark.parametrize("name", [name for name in DEATHS if DEATHS[name].without == "connection"])
def test_replay_alone_would_do_for_some(name, method):
    """Without the second look, the request goes into the dead connection, and out again."""
    death = DEATHS[name]
    tls = None if death.tls is None else TLS(death.tls)
    with shim(replay="idempotent"), reused(tls=tls) as (server, pool):
        after_checkout(pool, have(server, death.step, death.events))
        outcome = send(server, pool, method)
        assert outcome[:3] == (200, True, None), outcome
        assert (outcome.arrivals, outcome.processed) == (1, 1)
        assert counters(server)["replays"] == {"ok": 1}


def test_through_a_tunnel():
    """The tunnel is made anew, too."""
    tls = TLS()
    for who in (stock, shim_with_second_look):
        with who(), FaultServer(
            tls=tls, default=ECHO
        ) as server, ConnectProxy() as proxy, urllib3.ProxyManager(
            proxy.url, ca_certs=tls.ca_path, retries=False, timeout=10.0
        ) as manager:
            pool = manager.connection_from_url(server.url)
            assert pool.request("GET", "/").status == 200
            after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
            outcome = send(server, pool, "POST")
            if who is stock:
                assert kind_of(outcome.error) == "connection"
                continue
            assert outcome[:3] == (200, True, None), outcome
            assert (outcome.arrivals, len(proxy.tunnels)) == (1, 2)


@pytest.mark.parametrize("num_tickets", [0, 2])
def test_a_healthy_connection_is_kept(num_tickets):
    """TLS tickets that are there to be read are no reason to take another one."""
    tls = TLS(num_tickets=num_tickets)
    with shim_with_second_look(), reused(tls=tls) as (server, pool):
        for method in METHODS:
            assert send(server, pool, method)[:2] == (200, True)
        assert len(server.journal.connections) == 1
        assert counters(server)["moved"] == {}


# -- the race ------------------------------------------------------------------------------------

IDLE_S = 0.02  # nonidempotent_max_idle_s in these tests
AROUND_S = 0.004  # the FIN comes no more than so long before or after the request
#: the kernel counts idle time in ticks, and on a busy virtual machine several may come late
CLOSES_AT_S = IDLE_S + 0.12

RACING = {"replay": "idempotent", "second_look": True, "nonidempotent_max_idle_s": IDLE_S}


class Race(NamedTuple):
    """One combination of factors."""

    method: str
    tls: str
    route: str


WORLDS = ("threads", "eventlet")
ALL_RACES = pairwise([("GET", "POST"), TLS_VERSIONS, ROUTES, WORLDS], lambda *case: True)
RACES = {world: [Race(*case[:-1]) for case in ALL_RACES if case[-1] == world] for world in WORLDS}


def script(request: Request) -> StepOrSteps:
    if not request.path.endswith("/prime"):
        return ECHO
    return [ECHO, FinWithin(CLOSES_AT_S + AROUND_S, CLOSES_AT_S - AROUND_S)]


@pytest.fixture
def tries(request: pytest.FixtureRequest, race: Race) -> int:
    """Fewer where a handshake each makes them dear; all of them with ``--full``."""
    return 300 if race.tls == "plain" or request.config.getoption("--full") else 100


def races(race: Race, haproxy: str, tries: int) -> Dict[str, Any]:
    """Requests, each on a connection that is closed within a few ms of it: by the server, or by
    haproxy, for which it was idle too long. What came of them, and what the shim did.
    """
    tls = None if race.tls == "plain" else TLS(race.tls)
    is_behind = race.route == "haproxy"
    with FaultServer(
        (lambda request: ECHO) if is_behind else script, tls=None if is_behind else tls
    ) as server, route_to(
        server, race.route, tls, haproxy, keeps_ms=int(CLOSES_AT_S * 1000)
    ) as route:

        def once() -> Outcome:
            with route.make_pool() as pool:
                if race.method == "GET":
                    prime(pool, times=2, path="/warm")  # so that it takes the short way
                prime(pool)
                time.sleep(CLOSES_AT_S + random.uniform(-AROUND_S, AROUND_S))
                return send(server, pool, race.method)

        outcomes = side_by_side([once] * tries)
    failed = [links(outcome.error) for outcome in outcomes if outcome.error is not None]
    return {
        "failed": [[repr(link) for link in chain] for chain in failed],
        "left alone": stalepool.snapshot()["fallbacks"],
        "ok": sum(outcome[:3] == (200, True, None) for outcome in outcomes),
        "processed once": sum(outcome.processed == 1 for outcome in outcomes),
        "moved": sum(totals("moved").values()),
        "replayed": totals("replays").get("ok", 0),
        "found closed": totals("verdicts").get("closed", 0),
        "refused": totals("replays_refused"),
    }


def check_races(race: Race, tries: int, seen: Dict[str, Any]) -> None:
    assert (seen["failed"], seen["left alone"]) == ([], {})
    assert seen["ok"] == seen["processed once"] == tries, seen
    assert seen["refused"] == {}
    if race.method == "POST":
        # every single one was found closed, or was too old
        assert (seen["moved"] + seen["found closed"], seen["replayed"]) == (tries, 0), seen


@pytest.mark.parametrize("race", RACES["threads"], ids="-".join)
def test_hundreds_of_races(race, tries, haproxy_binary):
    with shim(**RACING):
        check_races(race, tries, races(race, haproxy_binary, tries))


GREEN_RACES = """
    import sys
    from worlds import enter
    enter("eventlet")

    import json
    from pools import shim
    from test_replay_races import RACING, Race, races

    with shim(**RACING):
        print(json.dumps(races(Race(*sys.argv[1:4]), sys.argv[4], int(sys.argv[5]))))
"""


@pytest.mark.parametrize("race", RACES["eventlet"], ids="-".join)
def test_hundreds_of_races_under_eventlet(race, tries, haproxy_binary, run_python):
    seen = run_python(GREEN_RACES, *race, haproxy_binary, tries, env=WITH_TESTS)
    check_races(race, tries, seen)


@pytest.mark.parametrize("race", RACES["threads"], ids="-".join)
def test_stock_loses_some(race, haproxy_binary):
    """How many is chance, and that there is one in thousands is none."""
    with stock():
        for _ in range(100):
            if races(race, haproxy_binary, tries=32)["ok"] < 32:
                return
    pytest.fail("stock lost none")
