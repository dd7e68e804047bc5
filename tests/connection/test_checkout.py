"""The check at checkout, through real pools, and behind a real haproxy."""

import unittest.mock

import pytest
import urllib3

import lanes
import pools
import stalepool
import stalepool_testing as testing
from breaks import breaks
from outages import both
from pools import counters, get, let_pass, pooled_connection, serving, shim, stock, verdicts
from replay_routes import through_haproxy
from replay_tools import reused
from stalepool import stats
from stalepool.connection import state
from stalepool.sockets import tcp_info
from stalepool_testing import TLS, CloseAfter, FaultServer


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
    with shim(), reused(times=2) as (server, pool):
        pools.end_while_idle(server, pool)
        conn = pooled_connection(pool)
        busy = RuntimeError("concurrent poll() invocation")
        state.find(conn.sock).poll = unittest.mock.Mock(**{"poll.side_effect": busy})
        assert urllib3.connectionpool.is_connection_dropped(conn) is True
        assert stalepool.snapshot()["fallbacks"] == {"check_failed": 1}
        assert get(pool) == 200


@pytest.mark.haproxy
@pytest.mark.parametrize("version", lanes.first(1, ["TLSv1.3", None]))
@both
def test_idle_past_the_keep_alive_timeout(haproxy_binary, who, version):
    """Three connections die of it; it can be read off the counters."""
    tls, keeps_s = TLS(version) if version else None, 0.3
    with who(), FaultServer() as server, through_haproxy(
        server, tls, haproxy_binary, int(keeps_s * 1000)
    ) as haproxy, pools.pool_for(haproxy, tls) as pool:
        assert get(pool) == 200
        for _ in range(3):
            pools.await_arrival(pool, testing.kernel.POLLRDHUP)
            assert get(pool) == 200
        assert len(server.journal) == 4
        if who is shim:
            assert verdicts(haproxy) == {"closed": 3}
            died = counters(haproxy)["died_idle_s"].items()
            # one of them may be late, at either end, on a busy machine
            _, age_s, _ = sorted(age_s for age_s, times in died for _ in range(times))
            assert keeps_s * 0.95 <= age_s < keeps_s * stats.BUCKET_RATIO**3
