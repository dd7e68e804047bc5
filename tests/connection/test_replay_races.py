"""A connection that dies after its checkout: the pre-send check sees it, or a replay follows."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional

import pytest
import urllib3

from pools import counters, pooled_connection, shim, stock
from replay_tools import (
    ECHO,
    METHODS,
    Outcome,
    after_checkout,
    have,
    kind_of,
    prime,
    reused,
    send,
)
from stalepool_testing import (
    TLS,
    Close,
    CloseAfter,
    ConnectProxy,
    FaultServer,
    HalfCloseAfter,
    IdleStep,
    ResetAfter,
    Surplus,
    kernel,
)

shim_with_presend_check = functools.partial(shim, presend_check=True)


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


@pytest.mark.parametrize("name", DEATHS)
def test_stock_meets_it(name):
    """It sends the request into the dead connection, or takes what lies there for its answer."""
    with stock():
        assert_met(DEATHS[name])


def test_without_the_presend_check():
    with shim(presend_check=False):
        assert_met(DEATHS["poison"])


def assert_met(death: Death) -> None:
    outcome = meet(death, "GET", after_checkout)
    assert not outcome.is_own_answer
    assert str(outcome.status or kind_of(outcome.error)) == death.without


@pytest.mark.parametrize(
    "options",
    [{}, {"headers": {"Content-Length": "4", "Expect": "100-continue"}}],
    ids=["in chunks", "a dialogue"],
)
def test_whatever_it_carries(options):
    """What could not be sent twice has not been sent at all."""
    with shim_with_presend_check(), reused() as (server, pool):
        for number in (1, 2):
            after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
            outcome = send(server, pool, "POST", body=iter([b"on", b"ce"]), **options)
            assert outcome == (200, True, None, 1, 1)
            assert server.journal[-1].body == b"once"
            assert counters(server)["moved"] == {"presend_check": number}


def test_it_looks_before_the_first_byte_and_never_again():
    """Between head and body would be too late: the server has seen the head."""
    with shim_with_presend_check(), reused(Close()) as (server, pool):

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

    with shim_with_presend_check(), reused() as (server, pool):
        after_checkout(pool, replace)
        assert send(server, pool, "POST")[:3] == (200, True, None)
        assert len(server.journal.connections) == 2
        assert counters(server)["moved"] == {}


@pytest.mark.each_value
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
    with shim_with_presend_check(), FaultServer(
        tls=tls, default=ECHO
    ) as server, ConnectProxy() as proxy, urllib3.ProxyManager(
        proxy.url, ca_certs=tls.ca_path, retries=False, timeout=10.0
    ) as manager:
        pool = manager.connection_from_url(server.url)
        prime(pool)
        after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
        assert send(server, pool, "POST") == (200, True, None, 1, 1)
        assert len(proxy.tunnels) == 2


def test_a_healthy_connection_is_kept():
    """TLS tickets that are there to be read are no reason to take another one."""
    tls = TLS(num_tickets=2)
    with shim_with_presend_check(), reused(tls=tls) as (server, pool):
        for method in METHODS:
            assert send(server, pool, method)[:2] == (200, True)
        assert len(server.journal.connections) == 1
        assert counters(server)["moved"] == {}
