"""The idle limit: ours, and what the server announces in ``Keep-Alive: timeout=N``.

No sleep decides anything here: the kernel's own clock of a connection says when it is time.
"""

from __future__ import annotations

import socket

import pytest

from pools import (
    counters,
    get,
    let_pass,
    pool_for,
    pooled_connection,
    serving,
    shim,
    stock,
    verdicts,
)
from stalepool import tcpinfo, wire
from stalepool.pooled import Pooled
from stalepool.testing import TLS, FaultServer, Respond, SlowAnswer, kernel


def wait_idle(pool, seconds):
    """Wait until no data has come in on the pooled connection for so long, by the kernel's clock.

    It counts in ticks of up to 10 ms, and may be ahead by one.
    """
    sock = pooled_connection(pool).sock
    kernel.wait_until(
        lambda: tcpinfo.silence(wire.wire_of(sock)).last_data_recv_ms >= seconds * 1000 + 20,
        "%s idle seconds" % seconds,
        10,
    )


@pytest.mark.parametrize("version", [None, "TLSv1.3"])
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_idle_too_long(who, version):
    """Stock has no such limit: it reuses whatever looks open."""
    tls = None if version is None else TLS(version)
    settings = {"max_idle_s": 0.5} if who is shim else {}
    with who(**settings), serving(tls=tls) as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        wait_idle(pool, 0.5)
        assert get(pool) == 200
        if who is stock:
            assert len(server.journal.connections) == 1
        else:
            assert len(server.journal.connections) == 2
            assert verdicts(server) == {"alive": 1, "idle_too_long": 1}
            assert counters(server)["died_idle_s"] == {}  # a rule of ours, nobody died


def test_at_the_first_look_too():
    """A connection pooled before the shim came has an age as well."""
    with serving() as (server, pool):
        with stock():
            assert get(pool) == 200
        with shim(max_idle_s=0.2):
            wait_idle(pool, 0.2)
            assert get(pool) == 200
            assert verdicts(server) == {"idle_too_long": 1}


def test_shorter_than_the_limit():
    with shim(max_idle_s=5), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        wait_idle(pool, 0.1)
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 2}


def test_off():
    with shim(max_idle_s="off"), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        # past every limit there could be, as the shim counts time
        let_pass(pool, 7 * 86400)
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 2}


def test_time_counts_from_the_last_data_not_from_the_checkout():
    """An answer that streams for longer than the limit leaves a connection that is fresh."""
    script = [Respond(200), SlowAnswer(1.2)]
    with shim(max_idle_s=1.0), serving(script) as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 2}
        assert len(server.journal.connections) == 1


def test_without_tcp_info_the_checkout_is_the_bound():
    with shim(max_idle_s=0.05), serving(family=socket.AF_UNIX) as (server, pool):
        assert get(pool) == 200
        let_pass(pool, 1)
        assert get(pool) == 200
        assert verdicts(server) == {"idle_too_long": 1}


def test_an_age_that_nobody_knows_is_not_too_much():
    """Pooled before the shim came, and no TCP that could be asked."""
    with serving(family=socket.AF_UNIX) as (server, pool):
        with stock():
            assert get(pool) == 200
        with shim(max_idle_s=0.001):
            assert get(pool) == 200
            assert verdicts(server) == {"alive": 1}
            assert len(server.journal.connections) == 1


# -- what the server announces -------------------------------------------------------------------

#: Keep-Alive header -> seconds a connection may idle; None where it says nothing
ANNOUNCEMENTS = {
    "timeout=5": 3.0,
    "timeout=5, max=100": 3.0,
    "max=100, timeout=5": 3.0,
    "max=100,timeout=5": 3.0,
    "Timeout = 75": 73.0,
    "timeout=3": 1.0,
    "timeout=2": 0.0,
    "timeout=1": 0.0,
    "timeout=0": 0.0,
    "timeout=99999999999999999999": 1e20,
    "": None,
    "max=100": None,
    "timeout": None,
    "timeout=": None,
    "timeout=soon": None,
    "timeout=-5": None,
    "timeout=5.5": None,
    "timeout=0x10": None,
    "timeout=\xb2": None,  # isdigit(), and yet no number
    "5": None,
    "; drop": None,
}


@pytest.mark.parametrize("header", ANNOUNCEMENTS)
def test_what_a_header_says(header):
    memory = Pooled(None, "http://a:1", None)
    memory.hear(header)
    assert memory.announced_limit_s == ANNOUNCEMENTS[header]


def announcing(seconds, **more):
    return Respond(200, headers={"Keep-Alive": "timeout=%s" % seconds}, **more)


@pytest.mark.parametrize("seconds", [0, 1, 2])
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_announced_for_no_longer_than_the_margin(who, seconds):
    with who(), serving(default=announcing(seconds)) as (server, pool):
        assert [get(pool), get(pool), get(pool)] == [200] * 3
        if who is stock:
            assert len(server.journal.connections) == 1
        else:
            assert len(server.journal.connections) == 3
            assert verdicts(server) == {"idle_too_long": 2}


def test_announced_for_longer():
    """Two seconds before the server's time is up the connection counts as too old."""
    with shim(), serving(default=announcing(3)) as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        assert verdicts(server) == {"alive": 1}
        wait_idle(pool, 1.0)
        assert get(pool) == 200
        assert verdicts(server) == {"alive": 1, "idle_too_long": 1}


def test_our_own_limit_stays_where_it_is_shorter():
    with shim(max_idle_s=0.2), serving(default=announcing(60)) as (server, pool):
        assert get(pool) == 200
        wait_idle(pool, 0.2)
        assert get(pool) == 200
        assert verdicts(server) == {"idle_too_long": 1}


def test_the_announcement_holds_where_our_limit_is_off():
    with shim(max_idle_s="off"), serving(default=announcing(1)) as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        assert verdicts(server) == {"idle_too_long": 1}


def test_an_announcement_is_for_one_connection():
    """The next connection to the same server is judged by what was said on it."""
    with shim(), serving([announcing(1)]) as (server, pool):
        assert [get(pool) for _ in range(4)] == [200] * 4
        assert len(server.journal.connections) == 2
        assert verdicts(server) == {"idle_too_long": 1, "alive": 2}


def test_the_last_announcement_counts():
    script = [announcing(60), announcing(1), announcing(60)]
    with shim(), serving(script) as (server, pool):
        assert [get(pool) for _ in range(4)] == [200] * 4
        assert verdicts(server) == {"alive": 2, "idle_too_long": 1}


def test_an_announcement_may_change_on_a_trusted_connection():
    script = [announcing(60)] * 4 + [announcing(1)]
    with shim(), serving(script) as (server, pool):
        assert [get(pool) for _ in range(6)] == [200] * 6
        assert verdicts(server) == {"alive": 4, "idle_too_long": 1}


@pytest.mark.parametrize("answers_before", [1, 4])
def test_an_announcement_may_come_late(answers_before):
    script = [Respond(200)] * answers_before + [announcing(1)]
    with shim(), serving(script) as (server, pool):
        assert [get(pool) for _ in range(answers_before + 2)] == [200] * (answers_before + 2)
        assert verdicts(server) == {"alive": answers_before, "idle_too_long": 1}


def test_junk_is_ignored():
    server = FaultServer(default=Respond(200, headers={"Keep-Alive": "timeout=\xb2, \xff=;"}))
    with shim(), server, pool_for(server) as pool:
        assert [get(pool), get(pool)] == [200, 200]
        assert verdicts(server) == {"alive": 1}
