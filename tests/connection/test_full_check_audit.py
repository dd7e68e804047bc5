"""``mode=audit`` only looks: nothing is set, nothing is read, urllib3 decides as it always did.

Verdict by verdict in ``test_verdict``; that nothing is read of any socket, in ``test_liveness``.
"""

from __future__ import annotations

import socket

import pytest
import urllib3

import stalepool
import stalepool_testing as testing
from pools import (
    await_arrival,
    await_probe,
    counters,
    get,
    pooled_connection,
    serving,
    shim,
    verdicts,
)
from socket_states import arm_keepalive
from stalepool import stats
from stalepool.connection.checkout import make_is_connection_dropped
from stalepool_testing import TLS, BlackHole, Respond, into_pool, kernel


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
        conn = into_pool(pool, server.connect())
        await_arrival(pool)
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


def test_an_unanswered_probe_is_counted_and_the_connection_used():
    """The application armed keepalive by itself; the probe's word is heard all the same."""
    script = [Respond(200), BlackHole()]
    with shim(mode="audit"), serving(script) as answers_probes, serving(script) as not_known:
        for server, pool in (answers_probes, not_known):
            assert get(pool) == 200
            server.wait_idle_step()
            arm_keepalive(pooled_connection(pool).sock, count=9)
        stats.origin(answers_probes[0].origin).knowledge.note_probe_answered()
        for server, pool in (answers_probes, not_known):
            await_probe(pooled_connection(pool).sock)
            with pytest.raises(urllib3.exceptions.ReadTimeoutError):
                get(pool, timeout=0.2)
            assert len(server.journal.connections) == 1
        assert verdicts(answers_probes[0]) == {"probe_unanswered": 1}
        assert verdicts(not_known[0]) == {"alive": 1}  # active mode would have moved the request
        assert counters(not_known[0])["moved"] == {"probe_unanswered": 1}


def test_a_fork_is_counted_and_the_connection_shared(pretend_fork):
    with shim(mode="audit"), serving() as (server, pool):
        assert get(pool) == 200
        pretend_fork()
        assert get(pool) == 200
        assert verdicts(server) == {"foreign_process": 1}
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
