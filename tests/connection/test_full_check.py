"""The full check: idle limits, ``mode=audit``, what it does not know, and TLS that talks to itself.

Where it does not know a connection or a socket, urllib3's own word comes out, and is counted.
"""

from __future__ import annotations

import http.client
import logging
import socket
import time
import unittest.mock
import warnings
from types import SimpleNamespace

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import pools
import stalepool
import stalepool_testing as testing
from breaks import breaks, raises
from pools import counters, get, pooled_connection, serving, shim, stock, verdicts, wait_idle
from replay_tools import after_checkout, reused, side_by_side
from stalepool import stats
from stalepool.connection.checkout import make_is_connection_dropped
from stalepool.connection.state import origin_of
from stalepool_testing import TLS, FaultServer, Respond, SlowAnswer, into_pool, kernel, release
from worlds import WITH_TESTS


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["TCP", "Unix"])
def test_a_connection_pooled_before_the_shim_came(family):
    """The kernel knows its age, whatever is announced; where it is no TCP it counts from now on."""
    is_known = family == socket.AF_INET
    with serving(family=family, default=announcing(60)) as (server, pool):
        with stock():
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
        pools.await_probe(pooled_connection(pool).sock)
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


def outcome(conn):
    """What the check says, or how it fails: stock's may, on what it was not made for."""
    try:
        return urllib3.connectionpool.is_connection_dropped(conn)
    except Exception as error:
        return type(error)


def real(sock, cls=HTTPConnection):
    conn = cls("localhost", 80)
    conn.sock = sock
    return conn


NO_WEAK_REFERENCES = "socket without weak references"

#: how it is made from a socket that is open or closed by its peer
ODDITIES = {
    "MagicMock": lambda sock: unittest.mock.MagicMock(),
    "None": lambda sock: None,
    # AppEngine's kind: there is no socket anybody could look at
    "no sock": lambda sock: SimpleNamespace(host="localhost", port=80),
    "http.client's own": lambda sock: real(sock, http.client.HTTPConnection),
    "mock socket": lambda sock: real(unittest.mock.MagicMock()),
    "mock socket with a descriptor": lambda sock: real(unittest.mock.Mock(fileno=sock.fileno)),
    "raising fileno": lambda sock: real(unittest.mock.Mock(fileno=raises)),
    NO_WEAK_REFERENCES: lambda sock: real(object()),
}


@pytest.mark.each_value
@pytest.mark.parametrize("peer", ["open", "closed"])
@pytest.mark.parametrize("name", ODDITIES)
def test_stocks_word_comes_out(name, peer, caplog):
    reason = "check_failed" if name == NO_WEAK_REFERENCES else "unknown_connection"
    with testing.healthy() if peer == "open" else testing.eof() as pair:
        conn = ODDITIES[name](pair.client)
        with stock():
            wanted = outcome(conn)
        with shim():
            assert [outcome(conn) for _ in range(3)] == [wanted] * 3
            fallbacks = stalepool.snapshot()["fallbacks"]
            assert fallbacks.pop("requests_unseen", 2) == 2  # there were none between the checks
            assert fallbacks == {reason: 3}
    said = [record for record in caplog.records if "(%s)" % reason in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING]


def test_a_real_connection_beside_stubs(monkeypatch):
    """vcrpy replaces http.client's class for as long as it has a cassette in use."""
    with shim(), serving() as (_, pool):
        assert get(pool) == 200
        monkeypatch.setattr(http.client, "HTTPConnection", type("Stub", (), {}))
        assert get(pool) == 200
        assert stalepool.snapshot()["fallbacks"] == {}


def test_a_connection_that_was_put_back_unused():
    with shim(keepalive_idle_s=1), serving() as (_, pool):
        assert get(pool) == 200
        pool._put_conn(pool._get_conn())
        time.sleep(1.1)  # for the next check to be a full one
        assert get(pool) == 200
        assert stalepool.snapshot()["fallbacks"] == {}


@pytest.fixture
def http2_connection():
    """urllib3's own class; a factory. The older 2.x have none, and 1.26 not."""
    pytest.importorskip("h2")
    return pytest.importorskip("urllib3.http2.connection").HTTP2Connection


@pytest.mark.parametrize("state", ["open", "talking", "closed"])
def test_http2_is_left_to_urllib3(http2_connection, state):
    """It talks when it is idle (SETTINGS, PING): "readable means not reusable" is no rule there."""
    make = {"open": testing.healthy, "talking": testing.unread, "closed": testing.eof}[state]
    with make() as pair:
        conn = real(pair.client, http2_connection)
        with stock():
            wanted = outcome(conn)
        with shim():
            assert outcome(conn) is wanted is (state != "open")
            assert stalepool.snapshot()["fallbacks"] == {"unknown_connection": 1}
            assert stalepool.snapshot()["totals"]["checkouts"] == 0


@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_vcrpy_records_and_replays(tmp_path, who):
    """Its stub computes its ``sock``, and is left to urllib3: it talks to a tape, not to a peer."""
    vcr = pytest.importorskip("vcr")
    cassette = str(tmp_path / "cassette.yaml")

    def ask_for_three():
        with urllib3.PoolManager(retries=False) as manager:
            return [manager.request("GET", url + path).data for path in ("a", "b", "c")]

    with who():
        with FaultServer(default=Respond(200, b"recorded")) as server:
            url = server.url
            with vcr.use_cassette(cassette):
                recorded = ask_for_three()
            assert [entry.connection for entry in server.journal] == [0, 0, 0]
        # the server is gone: what comes now comes off the cassette
        with vcr.use_cassette(cassette, record_mode="none"):
            replayed = ask_for_three()
    assert recorded == replayed == [b"recorded"] * 3


@pytest.mark.each_value
@pytest.mark.parametrize("requests_before", [0, 3])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_upgraded_connection_is_left_to_urllib3(method, requests_before):
    """Whoever takes the socket over may stream into it: it is neither checked nor touched."""
    headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
    script = [*[Respond(200)] * requests_before, Respond(101, headers=headers)]
    with shim(**pools.EVERYTHING), serving(script) as (server, pool):
        for _ in range(requests_before):
            assert get(pool) == 200
        response = pool.request(method, "/", headers=headers, preload_content=False)
        assert response.status == 101
        before = verdicts(server)
        conn = response._connection or pooled_connection(pool)
        found = [outcome(conn) for _ in range(2)]
        wanted = [urllib3.connectionpool.is_connection_dropped.__wrapped__(conn)] * 2
        assert found == wanted
        assert verdicts(server) == before
        response.release_conn()


@pytest.fixture
def openssl():
    """A TLS 1.3 connection to ``openssl s_server``, which has sent a KeyUpdate already."""
    try:
        pair = testing.key_update()
    except testing.Unavailable as reason:
        pytest.skip(str(reason))
    with pair:
        yield pair


def answer(terminal):
    """What ``s_server``'s terminal says comes from the client; what is typed there goes to it."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += terminal.recv(65536)
    terminal.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize("command", [b"k\n", b"K\n"], ids=["update", "update-and-ask-for-one"])
def test_key_updates(openssl, command):
    """Each makes a healthy connection readable: at the full check, then at the fast one."""
    with shim(), serving(tls="TLSv1.3") as (server, pool):
        into_pool(pool, openssl.client)
        for _ in range(3):
            assert side_by_side([lambda: get(pool), lambda: answer(openssl.peer)]) == [200, None]
            openssl.peer.sendall(command)
            pools.await_arrival(pool)
        assert verdicts(server) == {"alive": 3}
        assert len(server.journal.connections) == 0


PYOPENSSL = """
    import io, json, sys, warnings
    from worlds import enter
    io.DEFAULT_BUFFER_SIZE = 8192  # as before Python 3.14: what is read at a time
    if "eventlet" in sys.argv:
        enter("eventlet")
    with warnings.catch_warnings():  # urllib3 1.26 and cryptography on old Pythons
        warnings.simplefilter("ignore")
        from urllib3.contrib import pyopenssl
        pyopenssl.inject_into_urllib3()
    from pools import await_arrival, counters, get, pooled_connection, serving
    from pools import shim, stock, verdicts
    from replay_tools import reused, send
    from stalepool_testing import (
        Close, CloseAfter, ProcessThenClose, Reset, Respond, SurplusWithAnswer, TLS,
    )

    def idle(tls):
        script = [
            Respond(200), Respond(200), CloseAfter(0),
            Respond(200), SurplusWithAnswer(surplus_status=404),
        ]
        with serving(script, tls=tls) as (server, pool):
            statuses = [get(pool), get(pool)]
            kind = type(pooled_connection(pool).sock).__name__
            server.wait_idle_step()
            await_arrival(pool)
            statuses += [get(pool), get(pool), get(pool)]
            return [kind, statuses, len(server.journal.connections), verdicts(server)]

    def replays(method, step, tls):
        with shim(replay="idempotent"), reused(step, tls=tls) as (server, pool):
            status, counted = send(server, pool, method).status, counters(server)
            return [status, counted["replays"], counted["replays_refused"]]

    def lost(who, tls):
        with who, reused(ProcessThenClose(), tls=tls) as (server, pool):
            return type(send(server, pool, "POST").error).__name__

    said = []
    for version in ("TLSv1.2", "TLSv1.3"):
        tls = TLS(version)
        with stock():
            stock_said = idle(tls)
        with shim():
            shim_said = idle(tls)
        steps = [Close(), Close(close_notify=True), Reset()]
        is_green = "eventlet" in sys.argv
        again = [] if is_green else [replays("PUT", step, tls) for step in steps]
        said.append([stock_said, shim_said, again, [lost(stock(), tls), lost(shim(), tls)]])
    print(json.dumps(said))
"""


def cannot_connect_twice():
    with warnings.catch_warnings():  # cryptography on old Pythons
        warnings.simplefilter("ignore")
        import OpenSSL
    return urllib3.__version__.startswith("1.") and int(OpenSSL.__version__.split(".")[0]) >= 25


@pytest.mark.skipif(
    cannot_connect_twice(),
    reason="urllib3 1.26 changes a context after its first connection, which pyOpenSSL 25 refuses",
)
@pytest.mark.parametrize("world", ["threads", "eventlet"])
def test_pyopenssl_in_place_of_ssl(run_python, world):
    """``urllib3.contrib.pyopenssl``; stock takes the surplus in its buffer for an answer, too.

    A request that met the end of a connection, in pyOpenSSL's own words, is sent again. With
    threads only: a green process does not end after that, with urllib3 1.26. One that is not sent
    again has stock's error: a second read at the end is an SSLError, after which urllib3's Retry
    sends a POST, too.
    """
    # 1.26's WrappedSocket leaves its socket to the collector if a file is open, in stock, too
    flags = ["-Wignore::ResourceWarning"] if urllib3.__version__.startswith("1.") else []
    for in_stock, ours, replays, lost in run_python(PYOPENSSL, world, env=WITH_TESTS, flags=flags):
        assert in_stock == ["WrappedSocket", [200, 200, 200, 200, 404], 2, {}]
        seen = {"alive": 2, "closed": 1, "tls_pending": 1}
        assert ours == ["WrappedSocket", [200] * 5, 3, seen]
        assert replays == ([[200, {"ok": 1}, {}]] * 3 if world == "threads" else [])
        assert lost == ["ProtocolError"] * 2
