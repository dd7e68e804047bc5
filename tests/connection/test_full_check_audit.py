"""``mode=audit`` only looks: nothing is set, nothing is read, urllib3 decides as it always did."""

from __future__ import annotations

import logging
import socket

import pytest
import urllib3

import stalepool
import stalepool_testing as testing
from pools import (
    await_arrival,
    await_probe,
    break_while_idle,
    counters,
    get,
    pooled_connection,
    serving,
    shim,
    stock,
    verdicts,
    wait_idle,
)
from socket_states import KINDS, STATES, arm_keepalive, is_possible, verdict_on
from stalepool import stats
from stalepool.connection.checkout import make_is_connection_dropped
from stalepool.sockets.layers import raw_of
from stalepool_testing import (
    TLS,
    BlackHole,
    CloseAfter,
    Respond,
    into_pool,
    kernel,
)

#: what a whole TLS 1.3 record is, only a read could tell
NOT_KNOWN_UNREAD = ("surplus", "late ticket", "late ticket, surplus", "broken record")


def audited(kind, state):
    if KINDS[kind].tls == "TLSv1.3" and state in NOT_KNOWN_UNREAD:
        return "unknown"
    return verdict_on(kind, state).value


CASES = [
    (kind, state)
    for kind in ("ipv4", "ipv6", "unix", "tls1.2", "tls1.3", "pyopenssl1.3", "tls-in-tls1.3")
    for state in STATES
    if is_possible(KINDS[kind], STATES[state]) and not STATES[state].is_slow
]


def kind_and_verdict(kind, state):
    """The matrix of both is in ``test_liveness``."""
    return {kind, (state, audited(kind, state), KINDS[kind].is_tcp)}


@pytest.mark.each_value(by=kind_and_verdict)
@pytest.mark.parametrize("kind, state", CASES, ids=["-".join(case) for case in CASES])
def test_the_verdict_is_counted_and_stocks_is_returned(kind, state):
    """And the socket is as it was: its options, its timeout, every byte of its buffer."""

    def traces():
        raw = raw_of(pair.client)
        return (
            kernel.unread_bytes(raw),
            raw.gettimeout(),
            raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        )

    Pool = urllib3.HTTPConnectionPool if KINDS[kind].tls is None else urllib3.HTTPSConnectionPool
    with Pool("127.0.0.1", 1, maxsize=1) as pool, KINDS[kind].make(STATES[state].tickets) as pair:
        STATES[state].enter(pair)
        conn = into_pool(pool, pair.client)
        with stock():
            wanted = urllib3.connectionpool.is_connection_dropped(conn)
        with shim(mode="audit"):
            before = traces()
            assert urllib3.connectionpool.is_connection_dropped(conn) is wanted
            assert traces() == before
            assert list(stalepool.snapshot()["totals"]["verdicts"]) == [audited(kind, state)]
            # that it cannot be told is nothing strange
            assert stalepool.snapshot()["fallbacks"] == {}


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
            urllib3.connectionpool.is_connection_dropped(conn)
            assert kernel.unread_bytes(conn.sock) == unread > 0
        with shim():
            assert get(pool) == 200
            assert verdicts(server) == {"alive": 1}
            assert len(server.journal.connections) == 1


def test_what_stock_drops_is_dropped(caplog):
    caplog.set_level(logging.DEBUG, "stalepool")
    with shim(mode="audit"), serving([Respond(200), CloseAfter(0)]) as (server, pool):
        break_while_idle(server, pool)
        assert get(pool) == 200
        assert verdicts(server) == {"closed": 1}
        assert sum(counters(server)["died_idle_s"].values()) == 1
        assert len(server.journal.connections) == 2
    (line,) = [record for record in caplog.records if record.name == "stalepool.checkout"]
    assert "would discard, closed" in line.getMessage()


def test_an_idle_limit_is_counted_and_not_enforced():
    with shim(mode="audit", max_idle_s=0.001), serving() as (server, pool):
        for _ in range(3):
            assert get(pool) == 200
            wait_idle(pool, 0.005)
        assert verdicts(server) == {"idle_too_long": 2}
        assert counters(server)["discards"] == 2
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
