"""The check at checkout, through real pools. Behind a real haproxy: ``test_replay_matrix``."""

import unittest.mock

import pytest
import urllib3

import stalepool
from breaks import breaks
from pools import end_while_idle, get, let_pass, pooled_connection, serving, shim, stock, verdicts
from replay_tools import reused
from stalepool.connection import state
from stalepool.sockets import tcp_info
from stalepool_testing import CloseAfter


def test_the_fast_check_suffices_until_a_probe_may_be_unanswered():
    """TCP_INFO is asked once more when the first probe may be out, however long the use before."""
    asked, ask = [], tcp_info.ask
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


def test_the_state_of_a_socket_that_is_gone_is_not_the_next_ones():
    """Its place in memory may be: here the state of another socket lies under its ``id()``."""
    with shim(), reused(times=2) as (server, pool), reused(times=2) as (_, other):
        of_the_other = state.find(pooled_connection(other).sock)
        state._states[id(pooled_connection(pool).sock)] = of_the_other
        server.perform(CloseAfter(0))
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 1, "closed": 1}


def test_a_check_that_somebody_has_put_in_urllib3s_place_is_asked_too(monkeypatch):
    """It may have reasons of its own."""
    with stock():
        monkeypatch.setattr(urllib3.connectionpool, "is_connection_dropped", lambda conn: True)
        with shim(), serving() as (server, pool):
            assert [get(pool), get(pool)] == [200, 200]
            assert len(server.journal.connections) == 2
            assert verdicts(server) == {"alive": 1}


def test_a_signal_handlers_exception_passes_through_the_fast_check():
    deadline = type("Deadline", (RuntimeError,), {})
    with shim(), reused(times=2) as (_, pool):
        broken = breaks("clock of the fast check", by=unittest.mock.Mock(side_effect=deadline))
        with broken, pytest.raises(deadline):
            urllib3.connectionpool.is_connection_dropped(pooled_connection(pool))


def test_a_check_while_another_thread_checks():
    """One poll object is for one thread at a time: the second one gets urllib3's own check."""
    with shim(falls_back=True), reused(times=2) as (server, pool):
        end_while_idle(server, pool)
        conn = pooled_connection(pool)
        busy = RuntimeError("concurrent poll() invocation")
        state.find(conn.sock).poll = unittest.mock.Mock(**{"poll.side_effect": busy})
        assert urllib3.connectionpool.is_connection_dropped(conn) is True
        assert stalepool.snapshot()["fallbacks"] == {"check_failed": 1}
        assert get(pool) == 200
