"""Connections and sockets the shim does not know: urllib3's own word comes out, and is counted."""

from __future__ import annotations

import http.client
import logging
import time
import unittest.mock
from types import SimpleNamespace

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import stalepool
import stalepool_testing as testing
from breaks import raises
from pools import EVERYTHING, get, pooled_connection, serving, shim, stock, verdicts
from stalepool_testing import FaultServer, Respond


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
    with shim(**EVERYTHING), serving(script) as (server, pool):
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
