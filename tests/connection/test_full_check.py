"""The full check: idle limits, ``mode=audit``, what it does not know, TLS that talks to itself."""

import functools
import http.client
import io
import logging
import socket
import time
import warnings
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import pools
import stalepool
import stalepool_testing as testing
from breaks import breaks, learnt_before, raises
from delayed_answers import kernel_says
from pools import counters, get, in_stock, let_pass, pooled_connection, serving, shim, verdicts
from replay_tools import ECHO, reset_after_checkout, reused, send, side_by_side
from stalepool import stats
from stalepool.connection.origins import origin_of
from stalepool.connection.state import UPGRADED, find
from stalepool_testing import TLS, CloseAfter, Respond, SlowAnswer, into_pool, kernel

ANNOUNCED = Respond(headers={"Keep-Alive": "timeout=1"})

#: max_idle_s, what is answered -> the verdicts, how many connections there are. Where seconds pass
#: before the last request, it is on a Unix socket: without TCP_INFO they count from the last answer
LIMITS = {
    "from the last data on": (1.0, [Respond(), SlowAnswer(1.2), Respond()], {"alive": 2}, 1),
    # not by a second, not by a margin: it is reused, whatever its age, until it ends
    "announced, and no reason to close": (None, [ANNOUNCED] * 3, {"alive": 2}, 1, 7 * 86400),
    "identity": (1, [Respond(401, headers={"WWW-Authenticate": "NTLM"})] * 3, {"alive": 2}, 1, 1),
    "from the last answer on": (1, [Respond()] * 3, {"alive": 1, "idle_too_long": 1}, 2, 1),
}


@pytest.mark.parametrize("name", LIMITS)
def test_an_idle_limit(name):
    max_idle_s, script, seen, connections, *passes_s = LIMITS[name]
    family = socket.AF_UNIX if passes_s else socket.AF_INET
    with shim(max_idle_s=max_idle_s), serving(script, family=family) as (server, pool):
        assert {get(pool) for _ in script[1:]} == {script[0].status}
        pools.let_pass(pool, sum(passes_s))
        assert get(pool) == script[0].status
        assert (verdicts(server), len(server.journal.connections)) == (seen, connections)
        assert counters(server)["died_idle_s"] == {}


def test_an_observed_limit_is_forgotten_once_a_connection_has_outlived_it():
    with shim(), reused() as (server, pool):
        for seconds_ago in (20, 10, 0):
            with learnt_before(seconds_ago):
                stats.origin(origin_of(pooled_connection(pool))).knowledge.note_fin(1.0)
        assert counters(server)["knowledge"]["observed_idle_limit_s"] == 1.0
        pools.wait_idle(pool, 2.1)
        assert get(pool) == 200
        assert counters(server)["knowledge"]["observed_idle_limit_s"] is None


def test_without_a_poll_urllib3s_own_check_decides():
    no_poll = breaks("poll", by=lambda: None)
    with no_poll, shim(falls_back=True), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        assert verdicts(server) == {"unknown": 1}
        assert set(stalepool.snapshot()["fallbacks"]) == {"unknown_connection"}


def test_without_tcp_info_nothing_more_is_asked():
    with breaks("TCP_INFO's layout", by=None), serving() as (server, pool):
        assert in_stock(get, pool) == 200
        with shim(max_idle_s=60):  # of what was pooled before, time counts from now on
            assert get(pool) == 200
            let_pass(pool, 6)  # the first probe may be out
            assert get(pool) == 200
            pools.end_while_idle(server, pool)
            assert get(pool) == 200
            assert verdicts(server) == {"alive": 2, "closed": 1}


ONE, TWO = {"probes": 1, "last_data_recv_ms": 6000, "last_ack_recv_ms": 6000}, {"probes": 2}
ANSWERED = {"last_data_recv_ms": 9000, "last_data_sent_ms": 9000}
MOVES, STAYS = True, False

#: whether the connection has replaced a silent one; seconds, and what the kernel says then -> is
#: the next request to move, are probes answered, are they swallowed
PROBES = {
    "a single one": (False, [(6, ONE)], MOVES, False, False),
    "its answer may be on its way": (False, [(6, {**ONE, "rtt_us": 800_000})], STAYS, False, False),
    # the request could not move, and the path healed: the next one, soon after, has no reason
    "the path heals": (False, [(0, TWO), (0, {})], STAYS, False, False),
    # two in a row would say that probes are swallowed
    "answered between": (True, [(6, ANSWERED), (6, TWO)], MOVES, True, False),
    "two in a row": (True, [(6, TWO)], STAYS, False, True),
    # it only looks: what it learnt would be in force after it
    "audit": (True, [(6, TWO)], MOVES, False, False),
}


@pytest.mark.parametrize("name", PROBES)
def test_unanswered_probes(name):
    replaced_silent, said, *seen = PROBES[name]
    with shim(falls_back=True), reused() as (_, pool):  # there are no requests between
        state, conn = find(pooled_connection(pool).sock), pooled_connection(pool)
        state.replaced_silent = replaced_silent
        stalepool.install(mode="audit" if name == "audit" else "active")
        for seconds, facts in said:
            let_pass(pool, seconds)
            with kernel_says(**facts):
                assert not urllib3.connectionpool.is_connection_dropped(conn)
        knowledge = state.origin.knowledge
        assert [state.is_silent, knowledge.answers_probes, knowledge.swallows_probes] == seen


def test_of_unix_sockets_no_limit_is_observed():
    """All of them share one origin, whatever their servers."""
    with shim(), serving(family=socket.AF_UNIX) as (server, pool):
        for seconds_ago in (20, 10, 0):
            assert get(pool) == 200
            pools.end_while_idle(server, pool)
            let_pass(pool, 2)
            with learnt_before(seconds_ago):
                assert get(pool) == 200
        assert counters(server)["gone"] == {"closed": 3}
        assert counters(server)["knowledge"]["observed_idle_limit_s"] is None


def test_key_updates():
    """Each makes a healthy connection readable: at the full check, then at the fast one."""
    try:
        openssl = testing.key_update()  # what its terminal says comes from the client
    except testing.Unavailable as reason:
        pytest.skip(str(reason))

    def answer():
        said = b""
        while b"\r\n\r\n" not in said:
            said += openssl.peer.recv(65536)
        openssl.peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with shim(), serving(tls="TLSv1.3") as (server, pool), openssl:
        into_pool(pool, openssl.client)
        for command in (b"k\n", b"K\n", b"K\n"):  # an update; one that asks for another
            assert side_by_side([lambda: get(pool), answer]) == [200, None]
            openssl.peer.sendall(command)
            pools.await_arrival(pool)
        assert (verdicts(server), server.journal.connections) == ({"alive": 3}, [])


def test_from_audit_to_active_and_back():
    """The ticket that audit did not touch is there for the next check, which finds it harmless.

    The first check after a change is a full one. In audit nothing is set.
    """
    audit = functools.partial(shim, mode="audit")
    with serving(tls=TLS("TLSv1.3", num_tickets=2)) as (server, pool):
        conn = into_pool(pool, server.connect())
        pools.await_arrival(pool)
        with audit():
            unread = kernel.unread_bytes(conn.sock)
            assert urllib3.connectionpool.is_connection_dropped(conn)  # stock's word
            assert kernel.unread_bytes(conn.sock) == unread > 0
            assert verdicts(server) == {"unknown": 1}  # and no fallback: it cannot be told
        with shim():
            assert [get(pool), get(pool)] == [200, 200]
            assert (verdicts(server), counters(server)["keepalive_armed"]) == ({"alive": 2}, 1)
        with audit():
            assert [get(pool), get(pool)] == [200, 200]
            assert verdicts(server) == {"alive": 2}
            conn.close()
            assert [get(pool), get(pool)] == [200, 200]
            assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            assert counters(server)["keepalive_armed"] == 0


def word_on(conn):
    """What the check says, or how it fails: stock's may, on what it was not made for."""
    try:
        return urllib3.connectionpool.is_connection_dropped(conn)
    except Exception as error:
        return type(error)


def real(sock, cls=HTTPConnection):
    conn = cls("localhost", 80)
    conn.sock = sock
    return conn


@pytest.mark.parametrize("part", ["count of a death", "count of an event"])
def test_what_a_check_has_read_decides_though_it_cannot_be_counted(part):
    """urllib3's own check would not find the close_notify, which is read only once."""
    with shim(falls_back=True), testing.close_notify() as pair, breaks(part):
        assert word_on(real(pair.client)) is True
        assert stalepool.snapshot()["fallbacks"] == {"check_failed": 1}


def http2(sock):
    """It talks when it is idle: "readable means not reusable" is no rule there."""
    pytest.importorskip("h2")
    return real(sock, pytest.importorskip("urllib3.http2.connection").HTTP2Connection)


#: how it is made from a socket
ODDITIES = {
    "MagicMock": lambda sock: MagicMock(),
    # AppEngine's kind: there is no socket anybody could look at
    "no sock": lambda sock: SimpleNamespace(host="localhost", port=80),
    "http.client's own": lambda sock: real(sock, http.client.HTTPConnection),
    "mock socket": lambda sock: real(MagicMock()),
    "raising fileno": lambda sock: real(Mock(fileno=raises)),
    "socket without weak references": lambda sock: real(object()),
    "HTTP/2": http2,
}


@pytest.mark.parametrize("name", ODDITIES)
def test_stocks_word_comes_out(name, caplog):
    reason = "check_failed" if "weak" in name else "unknown_connection"
    for make in (testing.healthy, testing.eof, testing.unread):
        with make() as pair:
            conn = ODDITIES[name](pair.client)
            wanted = in_stock(word_on, conn)
            caplog.clear()
            with shim(falls_back=True):
                assert [word_on(conn) for _ in range(3)] == [wanted] * 3
                fallbacks = stalepool.snapshot()["fallbacks"]
                assert fallbacks.pop("requests_unseen", 2) == 2  # there were none between
                assert fallbacks == {reason: 3}
        said = [record for record in caplog.records if "(%s)" % reason in record.getMessage()]
        assert [record.levelno for record in said] == [logging.WARNING]


def test_a_real_connection_beside_stubs(monkeypatch):
    """vcrpy replaces http.client's class for as long as it has a cassette in use."""
    with shim(), reused() as (_, pool):
        monkeypatch.setattr(http.client, "HTTPConnection", type("Stub", (), {}))
        assert get(pool) == 200


def test_vcrpy_records_and_replays(tmp_path):
    """Its stub computes its ``sock``, and is left to urllib3: it talks to a tape, not to a peer."""
    vcr = pytest.importorskip("vcr")
    cassette = str(tmp_path / "cassette.yaml")
    with shim(), serving(default=Respond(200, b"recorded")) as (server, pool):
        for mode in ("once", "none"):  # the second time all comes off the cassette
            with vcr.use_cassette(cassette, record_mode=mode):
                answers = [pool.request("GET", path).data for path in ("/a", "/b", "/c")]
            assert answers == [b"recorded"] * 3
            assert [entry.connection for entry in server.journal] == [0, 0, 0]


def test_an_answer_that_a_class_of_somebody_elses_reads_is_none_of_ours():
    """A replay would not be marked, nor its answer judged. So the connection has not answered."""
    with shim(replay="idempotent"), serving() as (server, pool):
        conn = pool._get_conn()
        conn.response_class = http.client.HTTPResponse
        pool._put_conn(conn)
        assert get(pool) == 200
        reset_after_checkout(server, pool)
        assert send(server, pool, "PUT").arrivals == 0
        assert counters(server)["replays_refused"] == {"fresh_connection": 1}


def test_a_connection_that_was_put_back_unused():
    with shim(keepalive_idle_s=1), reused() as (_, pool):
        pool._put_conn(pool._get_conn())
        time.sleep(1.1)  # for the next check to be a full one
        assert get(pool) == 200


def test_a_socket_that_is_closed_or_not_this_processs_is_asked_nothing(pretend_fork):
    with shim(), reused() as (server, pool):
        pretend_fork()
        assert get(pool) == 200
        pooled_connection(pool).sock.close()
        word_on(pooled_connection(pool))
        assert verdicts(server) == {"foreign_process": 1, "no_socket": 1}


@pytest.mark.parametrize("method, requests_before", [("GET", 0), ("POST", 3)])
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
        assert word_on(conn) == urllib3.connectionpool.is_connection_dropped.__wrapped__(conn)
        assert verdicts(server) == before
        conn.send(b"GET / HTTP/1.1\r\n\r\n")
        assert find(conn.sock).phase is UPGRADED
        response.release_conn()


def idle_with_pyopenssl(tls):
    script = [CloseAfter(0), ECHO, testing.SurplusWithAnswer(surplus_status=404)]
    with shim(), reused(*script, times=2, tls=tls) as (server, pool):
        kind = type(pooled_connection(pool).sock).__name__
        server.wait_idle_step()
        pools.await_arrival(pool)
        statuses = [get(pool), get(pool), get(pool)]
        saved = sum(counters(server)["saved"].values())
        return [kind, statuses, len(server.journal.connections), verdicts(server), saved]


def ended_with_pyopenssl(method, step, tls):
    with shim(replay="idempotent"), reused(step, tls=tls) as (server, pool):
        outcome, counted = send(server, pool, method), counters(server)
        said = outcome.status or type(outcome.error).__name__
        return [said, counted["replays"], counted["replays_refused"]]


def with_pyopenssl(world):
    """For each TLS version, what becomes of idle connections, and of requests that meet an end."""
    io.DEFAULT_BUFFER_SIZE = 8192  # as before Python 3.14: what is read at a time
    with warnings.catch_warnings():  # urllib3 1.26 and cryptography on old Pythons
        warnings.simplefilter("ignore")
        from urllib3.contrib import pyopenssl

        pyopenssl.inject_into_urllib3()
    said = []
    for tls in ("TLSv1.2", "TLSv1.3"):
        steps = [testing.Close(), testing.Close(close_notify=True), testing.Reset()]
        again = [ended_with_pyopenssl("PUT", step, tls) for step in steps if world == "threads"]
        lost = ended_with_pyopenssl("POST", testing.ProcessThenClose(), tls)
        said.append([idle_with_pyopenssl(tls), again, lost])
    return said


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
def test_pyopenssl_in_place_of_ssl(call_python, world):
    """``urllib3.contrib.pyopenssl``; stock takes the surplus in its buffer for an answer.

    A request that met the end of a connection is sent again; with threads only, since a green
    process does not end after that, with urllib3 1.26. One that is not has stock's error: a second
    read at the end is an SSLError, after which urllib3's Retry sends a POST, too.
    """
    # 1.26's WrappedSocket leaves its socket to the collector if a file is open, in stock, too
    flags = ["-Wignore::ResourceWarning"] if urllib3.__version__.startswith("1.") else []
    for idle, again, lost in call_python(with_pyopenssl, world, world=world, flags=flags):
        seen = {"alive": 2, "closed": 1, "tls_pending": 1}
        # what urllib3 survives by itself is not counted as saved
        assert idle == ["WrappedSocket", [200] * 3, 3, seen, seen["tls_pending"]]
        assert again == ([[200, {"ok": 1}, {}]] * 3 if world == "threads" else [])
        assert lost == ["ProtocolError", {}, {"method": 1}]
