"""A connection that dies after its checkout: the pre-send check, and the race itself."""

from __future__ import annotations

import functools
import threading
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Sequence

import pytest
import urllib3

import lanes
import stalepool
from pools import counters, pooled_connection, shim, stock
from replay_pairs import pairwise
from replay_routes import ROUTES, route_to
from replay_scenes import TLS_VERSIONS
from replay_tools import (
    ECHO,
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
    wait_for,
)
from stalepool_testing import (
    TLS,
    Close,
    CloseAfter,
    ConnectProxy,
    FaultServer,
    HalfCloseAfter,
    IdleStep,
    Request,
    Reset,
    ResetAfter,
    Surplus,
    kernel,
)
from stalepool_testing.channel import Channel
from stalepool_testing.script import StepOrSteps
from worlds import beside

shim_with_presend_check = functools.partial(shim, presend_check=True)

# -- the pre-send check --------------------------------------------------------------------------


class Death(NamedTuple):
    """What happens to the connection between the checkout and the request's first byte.

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


def meet(death: Death, method: str, when: Callable[..., None]) -> Outcome:
    tls = None if death.tls is None else TLS(death.tls)
    with reused(tls=tls, method=method) as (server, pool):
        when(pool, have(server, death.step, death.events))
        outcome = send(server, pool, method)
        if outcome.status == 200 and outcome.is_own_answer:
            assert counters(server)["moved"] == {"presend_check": 1}
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


@pytest.mark.each_value
@pytest.mark.parametrize("when", [after_checkout, while_its_head_is_made])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
@pytest.mark.parametrize("name", DEATHS)
def test_the_presend_check(name, method, when):
    """Nothing has been sent yet, so every method goes out on a fresh connection, once."""
    with shim_with_presend_check():
        outcome = meet(DEATHS[name], method, when)
        assert outcome[:3] == (200, True, None), outcome
        assert (outcome.arrivals, outcome.processed) == (1, 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", DEATHS)
def test_without_the_presend_check(name, method):
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
    with shim_with_presend_check(), reused() as (server, pool):
        after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
        outcome = send(server, pool, "POST", **options)
        assert outcome[:3] == (200, True, None), outcome
        assert (outcome.arrivals, outcome.processed) == (1, 1)
        assert server.journal[-1].body in (b"once", b"once" * 100_000)


def test_a_generator_goes_out_whole():
    with shim_with_presend_check(), reused() as (server, pool):
        for body in (b"first", b"second"):
            after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
            assert send(server, pool, "PUT", body=once(body)).status == 200
            assert server.journal[-1].body == body
        assert counters(server)["moved"] == {"presend_check": 2}


@pytest.mark.parametrize("step", [Close(), Reset()], ids=repr)
def test_it_looks_before_the_first_byte_and_never_again(step):
    """Between head and body would be too late: the server has seen the head."""
    with shim_with_presend_check(), reused(step) as (server, pool):

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

    for who in (stock, shim_with_presend_check):
        with who(), reused() as (server, pool):
            after_checkout(pool, replace)
            assert send(server, pool, "POST")[:3] == (200, True, None)
            assert len(server.journal.connections) == 2
            if who is not stock:
                assert counters(server)["moved"] == {}


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("name", [name for name in DEATHS if DEATHS[name].without == "connection"])
def test_replay_alone_would_do_for_some(name, method):
    """Without the pre-send check the request goes into the dead connection, and out again."""
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
    for who in (stock, shim_with_presend_check):
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
    with shim_with_presend_check(), reused(tls=tls) as (server, pool):
        for method in METHODS:
            assert send(server, pool, method)[:2] == (200, True)
        assert len(server.journal.connections) == 1
        assert counters(server)["moved"] == {}


# -- the race ------------------------------------------------------------------------------------

RACING = {"replay": "idempotent", "presend_check": True, "nonidempotent_max_idle_s": "auto"}
TRIES = 30
#: after so long haproxy has had enough of an idle connection
KEEPS_MS = 200


class Race(NamedTuple):
    """One combination of factors."""

    method: str
    tls: str
    route: str


WORLDS = ("threads", "eventlet")
ALL_RACES = pairwise([("GET", "POST"), TLS_VERSIONS, ROUTES, WORLDS], lambda *case: True)
RACES = {world: [Race(*case[:-1]) for case in ALL_RACES if case[-1] == world] for world in WORLDS}


class End(IdleStep):
    """A FIN when it is told: a gate in the place of chance. A request has not come before it."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def idle(self, channel: Channel) -> bool:
        assert self.told.wait(30)
        channel.close()
        return True


class EndAsItArrives(IdleStep):
    """A FIN when the first bytes of a request are there, of which none is read."""

    def idle(self, channel: Channel) -> bool:
        channel.wait_request()
        channel.throw_away()
        channel.close()
        return True


def moments_of(race: Race, has_shim: bool) -> Sequence[str]:
    """The moments at which a connection ends, and there is a remedy."""
    is_late_too = race.method == "GET" and race.route != "haproxy"
    moments = ["before the checkout", "after the checkout", "as the request arrives"]
    return (moments if is_late_too else moments[:2])[not has_shim :]


def races(race: Race, haproxy: str, has_shim: bool = True) -> Dict[str, Any]:
    """Requests side by side, each on a connection that is closed at one of the moments: by the
    server, or by haproxy, for which it was idle too long. What came of them, and what the shim did.
    """
    tls = None if race.tls == "plain" else TLS(race.tls)
    is_behind = race.route == "haproxy"
    moments = moments_of(race, has_shim)
    ends = [End() for _ in range(TRIES)]

    def script(request: Request) -> StepOrSteps:
        _, is_prime, number = request.path.partition("/prime/")
        if not is_prime or is_behind:
            return ECHO
        is_late = moments[int(number) % len(moments)] == "as the request arrives"
        return [ECHO, EndAsItArrives() if is_late else ends[int(number)]]

    with FaultServer(script, tls=None if is_behind else tls) as server, route_to(
        server, race.route, tls, haproxy, keeps_ms=KEEPS_MS
    ) as route:

        def once(number: int) -> Outcome:
            def end(conn: Any) -> None:
                ends[number].told.set()
                wait_for(kernel.POLLRDHUP)(conn)

            moment = moments[number % len(moments)]
            with route.make_pool() as pool:
                prime(pool, path="/prime/%d" % number)
                if moment == "before the checkout":
                    end(pooled_connection(pool))
                elif moment == "after the checkout":
                    after_checkout(pool, end)
                return send(server, pool, race.method)

        outcomes = side_by_side([functools.partial(once, number) for number in range(TRIES)])
    failed = [links(outcome.error) for outcome in outcomes if outcome.error is not None]
    return {
        "failed": [[repr(link) for link in chain] for chain in failed],
        "left alone": stalepool.snapshot()["fallbacks"],
        "ok": sum(outcome[:3] == (200, True, None) for outcome in outcomes),
        "processed once": sum(outcome.processed == 1 for outcome in outcomes),
        "moved": totals("moved"),
        "replayed": totals("replays").get("ok", 0),
        "found closed": totals("verdicts").get("closed", 0),
        "refused": totals("replays_refused"),
    }


def check_races(race: Race, seen: Dict[str, Any]) -> None:
    assert (seen["failed"], seen["left alone"]) == ([], {})
    assert seen["ok"] == seen["processed once"] == TRIES, seen
    assert seen["refused"] == {}, seen
    each = TRIES // len(moments_of(race, has_shim=True))
    if race.route == "haproxy":  # which may have closed one before its time
        assert seen["found closed"] + seen["moved"].get("presend_check", 0) == TRIES, seen
    else:
        assert seen["found closed"] == each, seen
        assert seen["moved"] == {"presend_check": each}, seen
        assert seen["replayed"] == TRIES - 2 * each, seen


@pytest.mark.parametrize("race", RACES["threads"], ids="-".join)
def test_races(race, haproxy_binary):
    with shim(**RACING):
        check_races(race, races(race, haproxy_binary))


GREEN_RACES = """
    import sys
    from worlds import enter
    enter("eventlet")

    import json
    from pools import shim
    from test_replay_races import RACING, Race, races

    with shim(**RACING):
        print(json.dumps(races(Race(*sys.argv[1:4]), sys.argv[4])))
"""


@pytest.mark.parametrize("race", lanes.first(1, RACES["eventlet"]), ids="-".join)
def test_races_under_eventlet(race, haproxy_binary, run_python):
    check_races(race, run_python(GREEN_RACES, *race, haproxy_binary, env=beside(__file__)))


@pytest.mark.full
@pytest.mark.parametrize("race", RACES["threads"], ids="-".join)
def test_stock_loses_each(race, haproxy_binary):
    """But for those that it finds closed at the checkout."""
    with stock():
        assert races(race, haproxy_binary, has_shim=False)["ok"] == 0
