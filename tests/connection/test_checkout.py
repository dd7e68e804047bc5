"""The check at checkout, through real pools.

Other ends of a connection are in the modules named after them.
"""

from __future__ import annotations

import io
import socket

import pytest
import urllib3

import stalepool
import stalepool_testing as testing
from breaks import breaks
from pools import (
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
)
from replay_tools import side_by_side
from socket_states import KINDS, STATES, is_possible, verdict_on
from stalepool import stats
from stalepool.connection import state
from stalepool.sockets import tcp_info
from stalepool_testing import TLS, CloseAfter, Respond, SurplusWithAnswer, into_pool

both = pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])

#: family, TLS version
HEALTHY = [
    (socket.AF_INET, None),
    (socket.AF_INET6, None),
    (socket.AF_UNIX, None),
    (socket.AF_INET, "TLSv1.2"),
    (socket.AF_INET, "TLSv1.3"),
]


@pytest.mark.parametrize(("family", "version"), HEALTHY)
@both
def test_a_healthy_connection_is_reused(who, family, version):
    """Of other clients in ``test_replay_clients``."""
    with who(), serving(family=family, tls=version) as (server, pool):
        assert [get(pool) for _ in range(5)] == [200] * 5
        assert len(server.journal.connections) == 1
        if who is shim:
            assert verdicts(server) == {"alive": 4}
            assert counters(server)["checkouts"] == 4
            assert counters(server)["discards"] == 0


def test_the_fast_check_suffices_until_a_probe_may_be_unanswered():
    """TCP_INFO is asked once more when the first probe may be out, however long the use before."""
    asked = []
    ask = tcp_info.ask
    listens = breaks("TCP_INFO", by=lambda layers: asked.append(layers) or ask(layers))
    with listens, shim(), serving() as (server, pool):
        for _ in range(20):
            assert get(pool) == 200
            let_pass(pool, 2)
        assert len(asked) == 1
        let_pass(pool, 5)  # the first probe may be out
        assert [get(pool), get(pool)] == [200, 200]
        assert len(asked) == 2
        assert verdicts(server) == {"alive": 21}


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


def kind_and_state(who, kind, state):
    """The matrix of both is in ``test_liveness``."""
    return {kind, state}


@pytest.mark.each_value(by=kind_and_state)
@pytest.mark.parametrize("kind, state", DEAD, ids=["-".join(case) for case in DEAD])
@both
def test_each_dead_state(who, kind, state):
    """One pooled connection of each kind in each state; urllib3 takes it, and gets an answer.

    At the fast check in ``test_checkout_never_yields``.
    """
    with who(), serving(tls=KINDS[kind].tls) as (server, pool):
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
            verdict = verdict_on(kind, state).value
            assert verdicts(server) == {verdict: 1}
            assert counters(server)["discards"] == 1
            # what urllib3 survives by itself is not counted as saved
            assert any(counters(server)["saved"].values()) is (verdict in stats.HIDDEN)


@pytest.mark.usefixtures("small_reads")
@both
def test_a_surplus_in_the_kernel_behind_an_answer(who):
    """In a segment of the answer before: http.client reads 8 KiB at a time and leaves it there."""
    with who(), serving([SurplusWithAnswer(408)]) as (server, pool):
        assert pool.request("GET", "/").status == 200
        assert pool.request("GET", "/").status == 200
        assert len(server.journal.connections) == 2
        if who is shim:
            assert verdicts(server) == {"unread": 1}


@both
def test_a_surplus_that_is_read_with_its_answer(who, monkeypatch):
    """From Python 3.14 on 128 KiB are read at a time: it is thrown away with the answer's file."""
    monkeypatch.setattr(io, "DEFAULT_BUFFER_SIZE", 128 * 1024)
    with who(), serving([SurplusWithAnswer(408)]) as (server, pool):
        assert [pool.request("GET", "/").status for _ in range(2)] == [200, 200]
        assert len(server.journal.connections) == 1
        if who is shim:
            assert verdicts(server) == {"alive": 1}


# -- what the shim keeps, or has not seen from its beginning -----------------------------------


@both
def test_a_late_ticket(who):
    """Stock throws a healthy connection away; it is kept, and carries the next request."""
    with who(), serving(tls=TLS("TLSv1.3", num_tickets=2)) as (server, pool):
        into_pool(pool, server.connect())
        await_arrival(pool)

        assert get(pool) == 200

        assert len(server.journal.connections) == (2 if who is stock else 1)
        if who is shim:
            assert verdicts(server) == {"alive": 1}


def test_a_check_that_somebody_has_put_in_urllib3s_place_is_asked_too(monkeypatch):
    """It may have reasons of its own."""
    with stock():
        monkeypatch.setattr(urllib3.connectionpool, "is_connection_dropped", lambda conn: True)
        with shim(), serving() as (server, pool):
            assert [get(pool), get(pool)] == [200, 200]
            assert len(server.journal.connections) == 2
            assert verdicts(server) == {"alive": 1}


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


class Deadline(RuntimeError):
    """A signal handler's."""


def test_a_signal_handlers_exception_passes_through_the_fast_check():
    def raise_it():
        raise Deadline

    with shim(), serving() as (_, pool):
        assert [get(pool), get(pool)] == [200, 200]
        conn = pooled_connection(pool)
        with breaks("clock of the fast check", by=raise_it), pytest.raises(Deadline):
            urllib3.connectionpool.is_connection_dropped(conn)


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


@pytest.mark.full
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

        side_by_side([look] * 4)
        assert wrong == []
        assert get(pool) == 200
        assert len(server.journal.connections) == 1
