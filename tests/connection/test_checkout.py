"""The check at checkout, through real pools and clients.

Here is what stock does not survive, or throws away for nothing; what it survives as well is in
``test_checkout_stock_faults``, other ends of a connection in the modules named after them.
"""

from __future__ import annotations

import contextlib
import socket
import threading

import keystoneauth1.session
import pytest
import requests
import urllib3

import stalepool
import stalepool_testing as testing
from breaks import breaks
from pools import (
    CHECKOUT_ALONE,
    await_arrival,
    break_while_idle,
    counters,
    get,
    let_pass,
    pooled_connection,
    serving,
    shim,
    stock,
    verdicts,
    wait_idle,
)
from socket_states import KINDS, STATES, is_possible, parts_of, verdict_on
from stalepool.connection import state
from stalepool.sockets import tcp_info
from stalepool_testing import (
    TLS,
    CloseAfter,
    FaultServer,
    ResetAfter,
    Respond,
    Surplus,
    SurplusWithAnswer,
    into_pool,
)


@contextlib.contextmanager
def urllib3_client(server, tls):
    """``get(path) -> status`` through a urllib3 PoolManager."""
    ca_certs = None if tls is None else tls.ca_path
    with urllib3.PoolManager(ca_certs=ca_certs, retries=False) as manager:
        yield lambda: manager.request("GET", server.url).status


@contextlib.contextmanager
def requests_client(server, tls):
    with requests.Session() as session:
        session.trust_env = False
        session.verify = tls is None or tls.ca_path
        yield lambda: session.get(server.url).status_code


@contextlib.contextmanager
def keystoneauth1_client(server, tls):
    with requests.Session() as below:  # so that the test closes what it opened
        below.trust_env = False
        session = keystoneauth1.session.Session(
            session=below, verify=tls is None or tls.ca_path, timeout=10
        )
        options = {"authenticated": False, "raise_exc": False, "connect_retries": 0}
        yield lambda: session.get(server.url, **options).status_code


CLIENTS = {
    "urllib3": urllib3_client,
    "requests": requests_client,
    "keystoneauth1": keystoneauth1_client,
}
both = pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])


@pytest.mark.each_value
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("version", [None, "TLSv1.2", "TLSv1.3"])
@both
def test_a_healthy_connection_is_reused(who, version, client):
    tls = TLS(version) if version else None
    with who(), FaultServer(tls=tls) as server, CLIENTS[client](server, tls) as send:
        assert [send() for _ in range(5)] == [200] * 5
        assert len(server.journal.connections) == 1
        if who is shim:
            assert verdicts(server) == {"alive": 4}
            assert counters(server)["checkouts"] == 4
            assert counters(server)["discards"] == 0


@pytest.mark.parametrize("family", [socket.AF_INET6, socket.AF_UNIX])
def test_a_healthy_connection_is_reused_in_every_family(family):
    with shim(), serving(family=family) as (server, pool):
        assert [get(pool) for _ in range(4)] == [200] * 4
        assert len(server.journal.connections) == 1
        assert verdicts(server) == {"alive": 3}


@pytest.mark.parametrize("timeout", [None, 30])
def test_socket_timeouts_are_left_alone(timeout):
    with shim(), serving(tls=TLS(), timeout=timeout) as (server, pool):
        for _ in range(3):
            assert get(pool) == 200
            assert pooled_connection(pool).sock.gettimeout() == timeout
        assert verdicts(server) == {"alive": 2}


def test_the_fast_check_suffices_until_a_probe_may_be_unanswered():
    """TCP_INFO is asked once more when the first probe may be out, and not before."""
    asked = []
    ask = tcp_info.ask
    listens = breaks("TCP_INFO", by=lambda layers: asked.append(layers) or ask(layers))
    with listens, shim(), serving() as (server, pool):
        for _ in range(20):
            assert get(pool) == 200
        assert len(asked) == 1
        let_pass(pool, 5)  # the first probe may be out
        assert [get(pool), get(pool)] == [200, 200]
        assert len(asked) == 2
        assert verdicts(server) == {"alive": 21}


def test_each_death_is_found_in_turn():
    """The same connection object gets a new socket each time; what is remembered goes with that."""
    script = [
        Respond(200),
        CloseAfter(0),
        Respond(200),
        ResetAfter(0),
        Respond(200),
        Respond(200),
        Surplus(408),
    ]
    with shim(), serving(script) as (server, pool):
        assert get(pool) == 200
        server.wait_idle_step(1)
        assert get(pool) == 200
        server.wait_idle_step(2)
        assert [get(pool), get(pool)] == [200, 200]
        server.wait_idle_step(3)
        assert get(pool) == 200
        assert verdicts(server) == {"closed": 1, "reset": 1, "alive": 1, "unread": 1}
        assert [entry.connection for entry in server.journal] == [0, 1, 2, 2, 3]


def test_dead_siblings_are_found_as_their_turn_comes():
    """A burst leaves several connections; urllib3 hands out the freshest, the others lie below."""

    def burst(pool):
        responses = [pool.request("GET", "/", preload_content=False) for _ in range(3)]
        for response in responses:
            assert response.status == 200
            response.read()
            response.release_conn()

    with shim(), serving(default=Respond(200, b"x"), maxsize=3) as (server, pool):
        burst(pool)
        for number in range(3):
            server.perform(CloseAfter(0), connection=number)
        burst(pool)
        assert verdicts(server) == {"closed": 3}
        assert len(server.journal.connections) == 6


# -- every state -------------------------------------------------------------------------------

DEAD = [
    (kind, state)
    for kind in KINDS
    for state in STATES
    if is_possible(KINDS[kind], STATES[state])
    and verdict_on(kind, state).is_discard
    and not STATES[state].is_slow
]


@pytest.mark.each_value(by=parts_of)
@pytest.mark.parametrize("kind, state", DEAD, ids=["-".join(case) for case in DEAD])
@both
def test_each_dead_state(who, kind, state):
    """One pooled connection of each kind in each state; urllib3 takes it, and gets an answer."""
    version = KINDS[kind].tls
    tls = None if version is None else TLS(version)
    with who(), serving(tls=tls) as (server, pool):
        with KINDS[kind].make(STATES[state].tickets) as pair:
            STATES[state].enter(pair)
            into_pool(pool, pair.client)

            status = get(pool)

        if who is stock and state == "surplus in TLS":
            assert status == 408  # the wrong answer
        else:
            assert status == 200
            assert len(server.journal.connections) == 1
        if who is shim:
            assert verdicts(server) == {verdict_on(kind, state).value: 1}


# -- what stock throws away, or takes for an answer ---------------------------------------------


@both
def test_a_late_ticket(who):
    """Stock throws a healthy connection away; it is kept, and carries the next request."""
    tls = TLS("TLSv1.3", num_tickets=2)
    with who(), serving(tls=tls) as (server, pool):
        into_pool(pool, server.connect())
        await_arrival(pool)

        assert get(pool) == 200

        assert len(server.journal.connections) == (2 if who is stock else 1)
        if who is shim:
            assert verdicts(server) == {"alive": 1}


@pytest.mark.usefixtures("small_reads")
@both
def test_a_surplus_inside_the_tls_layer(who):
    """Behind an answer in its TLS record: stock takes it for the answer to the next request."""
    script = [Respond(200), SurplusWithAnswer(surplus_status=404)]
    with who(), serving(script, tls=TLS()) as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]

        third = get(pool)

        if who is stock:
            assert third == 404
            assert len(server.journal.connections) == 1
        else:
            assert third == 200
            assert len(server.journal.connections) == 2
            assert verdicts(server) == {"alive": 1, "tls_pending": 1}


# -- connections the shim did not see from their beginning ---------------------------------------


def test_a_connection_pooled_before_the_shim_came():
    with serving([Respond(200), Respond(200), Surplus(408)], tls=TLS()) as (server, pool):
        with stock():
            assert get(pool) == 200
        with shim():
            assert get(pool) == 200
            server.wait_idle_step()
            await_arrival(pool)
            assert get(pool) == 200
            assert verdicts(server) == {"alive": 1, "unread": 1}


def test_the_settings_of_now_count():
    """Changed between two requests: a full check is due then."""
    with shim(), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        stalepool.install(**CHECKOUT_ALONE, max_idle_s=0.001)
        wait_idle(pool, 0.005)
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 1, "idle_too_long": 1}


def test_switched_off_the_check_is_urllib3s():
    with serving([Respond(200), CloseAfter(0)]) as (server, pool):
        with shim():
            assert get(pool) == 200
        with stock():
            break_while_idle(server, pool, healthy_requests=0)
            assert get(pool) == 200
        assert verdicts(server) == {}


def test_what_is_remembered_is_of_a_socket():
    """Another socket on the same connection object, dead; the one that is remembered is alive."""
    with shim(), serving() as (server, pool), testing.eof() as pair:
        assert [get(pool), get(pool)] == [200, 200]
        conn = pooled_connection(pool)
        remembered, conn.sock = conn.sock, pair.client
        with remembered:
            assert get(pool) == 200
        assert verdicts(server) == {"alive": 1, "closed": 1}


def test_a_socket_closed_behind_urllib3s_back_at_the_fast_check():
    with shim(), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        pooled_connection(pool).sock.close()
        assert get(pool) == 200
        assert verdicts(server)["no_socket"] == 1


# -- sharing -------------------------------------------------------------------------------------


def test_a_check_while_another_thread_checks():
    """One poll object is for one thread at a time: the second one gets urllib3's own check."""
    with shim(), serving([Respond(200), Respond(200), CloseAfter(0)]) as (server, pool):
        break_while_idle(server, pool, healthy_requests=2)
        conn = pooled_connection(pool)

        class Busy:
            def poll(self, timeout_ms):
                raise RuntimeError("concurrent poll() invocation")

        state.find(conn.sock).poll = Busy()
        assert urllib3.connectionpool.is_connection_dropped(conn) is True
        assert stalepool.snapshot()["fallbacks"] == {"check_failed": 1}
        assert get(pool) == 200


def test_many_threads_check_one_connection():
    """Never an exception, never a wrong word, whoever of them is first."""
    with shim(), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        conn = pooled_connection(pool)
        wrong = []

        def look():
            for _ in range(500):
                if urllib3.connectionpool.is_connection_dropped(conn):
                    wrong.append(conn)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert get(pool) == 200
        assert len(server.journal.connections) == 1
