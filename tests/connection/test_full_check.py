"""Idle limits at the full check, and ``mode=audit``, which only looks; urllib3 decides then."""

from __future__ import annotations

import socket
import time

import pytest
import urllib3

import pools
import stalepool
import stalepool_testing as testing
from breaks import breaks
from pools import await_probe, counters, get, pooled_connection, serving, shim, verdicts, wait_idle
from replay_tools import after_checkout, reused
from stalepool import stats
from stalepool.connection.checkout import make_is_connection_dropped
from stalepool.connection.state import origin_of
from stalepool_testing import TLS, Respond, SlowAnswer, kernel, release


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["TCP", "Unix"])
def test_a_connection_pooled_before_the_shim_came(family):
    """The kernel knows its age, whatever is announced; where it is no TCP it counts from now on."""
    is_known = family == socket.AF_INET
    with serving(family=family, default=announcing(60)) as (server, pool):
        with pools.stock():
            assert get(pool) == 200
        with shim(max_idle_s=0.2 if is_known else 5):
            if is_known:
                wait_idle(pool, 0.2)
            assert get(pool) == 200
            assert verdicts(server) == {"idle_too_long" if is_known else "alive": 1}


by_each_limit = pytest.mark.parametrize(
    "setting, method", [("max_idle_s", "GET"), ("nonidempotent_max_idle_s", "POST")]
)


@by_each_limit
def test_time_counts_from_the_last_data_not_from_the_checkout(setting, method):
    """An answer that streams for longer than the limit leaves a connection that is fresh."""
    with shim(**{setting: 1.0}), serving([Respond(200), SlowAnswer(1.2)]) as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        assert pool.request(method, "/").status == 200
        assert verdicts(server) == {"alive": 2}
        assert len(server.journal.connections) == 1


@by_each_limit
def test_without_tcp_info_time_counts_from_the_last_answer(setting, method):
    with shim(**{setting: 1}), reused(family=socket.AF_UNIX) as (server, pool):
        assert pool.request(method, "/").status == 200
        assert len(server.journal.connections) == 1
        pools.let_pass(pool, 1)
        assert pool.request(method, "/").status == 200
        assert len(server.journal.connections) == 2
        if setting == "max_idle_s":
            assert verdicts(server) == {"alive": 1, "idle_too_long": 1}
        else:
            assert counters(server)["moved"] == {"idle_setting": 1}


def test_an_observed_limit_is_forgotten_once_a_connection_has_outlived_it():
    with shim(), reused() as (server, pool):
        for seconds_ago in (20, 10, 0):
            with breaks("clock of the counters", by=lambda ago=seconds_ago: time.monotonic() - ago):
                stats.origin(origin_of(pooled_connection(pool))).knowledge.note_fin(1.0)
        assert counters(server)["knowledge"]["observed_idle_limit_s"] == 1.0
        wait_idle(pool, 1.6)
        assert get(pool) == 200
        assert counters(server)["knowledge"]["observed_idle_limit_s"] is None


def announcing(seconds, **more):
    return Respond(200, headers={"Keep-Alive": "timeout=%s" % seconds}, **more)


def test_not_at_all():
    """``timeout=0``: it is as good as closed, and stock meets the close.

    But a server that rounds down says 0, too: its connections live on, as is learnt of three.
    """
    with shim(max_idle_s=60), serving(default=announcing(0)) as (server, pool):
        assert [get(pool) for _ in range(10)] == [200] * 10
        assert len(server.journal.connections) == 4
        assert verdicts(server) == {"idle_too_long": 3, "alive": 6}
        assert counters(server)["died_idle_s"] == {}


def test_any_longer_is_no_reason_to_close():
    """Not by a second, not by a margin: it is reused, whatever its age, until it ends."""
    with shim(), serving(family=socket.AF_UNIX, default=announcing(1)) as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        pools.let_pass(pool, 7 * 86400)
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 2}


def test_the_last_announcement_on_a_connection_counts():
    """Also one that comes after a fast check has sufficed, and not for the next connection."""
    script = [Respond(200), Respond(200), announcing(60), announcing(0), Respond(200)]
    with shim(), serving(script) as (server, pool):
        assert [get(pool) for _ in range(6)] == [200] * 6
        assert verdicts(server) == {"alive": 4, "idle_too_long": 1}
        assert len(server.journal.connections) == 2


def test_without_a_poll_urllib3s_own_check_decides():
    with breaks("poll", by=lambda: None), shim(), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        assert verdicts(server) == {"unknown": 1}
        assert set(stalepool.snapshot()["fallbacks"]) == {"unknown_connection"}


def test_without_tcp_info_nothing_more_is_asked():
    with breaks("TCP_INFO's layout", by=None), shim(), serving() as (server, pool):
        assert [get(pool), get(pool), get(pool)] == [200] * 3
        pools.end_while_idle(server, pool)
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 2, "closed": 1}
        assert stalepool.snapshot()["fallbacks"] == {}


def test_probes_that_are_answered_after_all_are_met_at_the_next_check():
    """The request could not move, and the path healed: the next one, soon after, has no reason."""
    settings = {"keepalive_idle_s": 1, "keepalive_interval_s": 1, "reconnect_window_s": 0}
    with shim(**settings), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        server.stop_listening()
        (channel,) = server.channels
        channel.flush()
        testing.swallow(channel.sock)
        await_probe(pooled_connection(pool).sock)
        after_checkout(pool, lambda conn: release(channel.sock))
        assert get(pool) == 200
        time.sleep(0.2)  # the pause after a move that was refused
        assert get(pool) == 200
        assert counters(server)["moved"] == {"failed": 1}


def test_where_stock_would_drop_what_is_alive():
    """Its word counts, not ours."""
    with shim(mode="audit"), testing.healthy() as pair:
        conn = urllib3.connection.HTTPConnection("localhost")
        conn.sock = pair.client
        assert make_is_connection_dropped(lambda conn: True, urllib3.connectionpool)(conn) is True
        assert list(stalepool.snapshot()["totals"]["verdicts"]) == ["alive"]


def test_active_mode_reads_what_audit_left():
    """The ticket that audit did not touch is there for the next check, which finds it harmless."""
    tls = TLS("TLSv1.3", num_tickets=2)
    with serving(tls=tls) as (server, pool):
        conn = testing.into_pool(pool, server.connect())
        pools.await_arrival(pool)
        with shim(mode="audit"):
            unread = kernel.unread_bytes(conn.sock)
            assert urllib3.connectionpool.is_connection_dropped(conn)  # stock's word
            assert kernel.unread_bytes(conn.sock) == unread > 0
            assert verdicts(server) == {"unknown": 1}
            # that it cannot be told is nothing strange
            assert stalepool.snapshot()["fallbacks"] == {}
        with shim():
            assert get(pool) == 200
            assert verdicts(server) == {"alive": 1}
            assert len(server.journal.connections) == 1


def test_a_move_is_counted_and_the_connection_used():
    with shim(mode="audit", nonidempotent_max_idle_s=0), reused() as (server, pool):
        assert pool.request("POST", "/").status == 200
        assert counters(server)["moved"] == {"idle_setting": 1}
        assert len(server.journal.connections) == 1


def test_from_audit_to_active_and_back():
    """After audit, and after active mode, the first check is a full one."""
    with serving() as (server, pool):
        with shim(mode="audit"):
            assert stalepool.snapshot()["mode"] == "audit"
            assert [get(pool), get(pool), get(pool)] == [200] * 3
            assert verdicts(server) == {"alive": 2}
            sock = pooled_connection(pool).sock
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            assert counters(server)["keepalive_armed"] == 0
        with shim():
            assert [get(pool), get(pool)] == [200, 200]
            assert counters(server)["keepalive_armed"] == 1
        with shim(mode="audit"):
            assert [get(pool), get(pool)] == [200, 200]
            assert verdicts(server) == {"alive": 2}
        assert len(server.journal.connections) == 1
