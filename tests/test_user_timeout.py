"""TCP_USER_TIMEOUT: which requests it is in force for, and that it cuts off nobody who is alive."""

from __future__ import annotations

import http.client
import io
import socket

import pytest
import urllib3
from urllib3.connection import HTTPConnection
from urllib3.util import Timeout

import stalepool
from pools import CHECKOUT_ALONE, get, pool_for, pooled_connection, shim, stock
from stalepool import patience
from stalepool.testing import TLS, Close, ConnectProxy, FaultServer, Respond

DEFAULT_MS = 15000
SMALL = 16 * 1024
APPLICATIONS_MS = 5000


def option_ms(conn):
    return conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def setting_it_oneself(milliseconds):
    """The ``socket_options`` of an application that has its own idea."""
    own = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return [*HTTPConnection.default_socket_options, own]


@pytest.fixture
def in_flight(monkeypatch):
    """What was set as each piece of a request went out, as far as that changed."""
    seen = []
    stock_sendall = HTTPConnection.send

    class Watched(HTTPConnection):
        def send(self, data):
            stock_sendall(self, data)
            if not seen or seen[-1] != option_ms(self):
                seen.append(option_ms(self))

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "ConnectionCls", Watched)
    return seen


# -- which requests --------------------------------------------------------------------------------


#: what is sent -> whether it is small: any peer's kernel takes it, whether its program reads or not
BODIES = {
    "none": (lambda: {}, True),
    "bytes": (lambda: {"body": b"x"}, True),
    "str": (lambda: {"body": "x"}, True),
    "form": (lambda: {"fields": {"a": "b"}}, True),
    "as much as is small": (lambda: {"body": b"x" * SMALL}, True),
    "one byte more": (lambda: {"body": b"x" * (SMALL + 1)}, False),
    "a file": (lambda: {"body": io.BytesIO(b"x"), "headers": {"Content-Length": "1"}}, False),
    "a file in chunks": (lambda: {"body": io.BytesIO(b"x")}, False),
    "a generator": (lambda: {"body": (b"x" for _ in range(3))}, False),
    "a list": (lambda: {"body": [b"x", b"y"]}, False),
    "chunked": (lambda: {"body": b"x", "chunked": True}, False),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_bodies(in_flight, who, body):
    """In force from the first byte on, on a fresh connection and on a reused one."""
    make, is_small = BODIES[body]
    wanted_ms = DEFAULT_MS if is_small and who is shim else 0
    with who(), FaultServer() as server, pool_for(server) as pool:
        for _ in range(2):
            assert pool.request("POST", "/", **make()).status == 200
        assert in_flight == [wanted_ms]
        assert option_ms(pooled_connection(pool)) == wanted_ms
        assert len(server.journal.connections) == 1


def test_through_a_tunnel():
    """The connection was opened, and the tunnel made, before there was a request."""
    tls = TLS()
    with shim(), FaultServer(tls=tls) as server, ConnectProxy() as proxy:
        with urllib3.ProxyManager(proxy.url, ca_certs=tls.ca_path, retries=False) as client:
            for body, wanted_ms in ((b"x", DEFAULT_MS), ((b"x" for _ in range(3)), 0)):
                assert client.request("POST", server.url, body=body).status == 200
                pool = client.connection_from_url(server.url)
                assert option_ms(pooled_connection(pool)) == wanted_ms
        assert len(proxy.tunnels) == 1


@pytest.mark.parametrize("requests_before", [0, 1, 3])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_protocol(method, requests_before):
    """Whoever takes the socket over may stream into it: docker-py does, to a program's input."""
    headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
    script = [*[Respond(200)] * requests_before, Respond(101, headers=headers)]
    with shim(), FaultServer(script) as server, pool_for(server) as pool:
        for _ in range(requests_before):
            assert get(pool) == 200
        response = pool.request(method, "/", headers=headers, preload_content=False)
        assert response.status == 101
        assert option_ms(response._connection or pooled_connection(pool)) == 0


def test_from_one_request_to_the_next(in_flight):
    """On one socket: it changes as the requests do."""
    with shim(), FaultServer() as server, pool_for(server) as pool:
        for _ in range(2):
            assert get(pool) == 200
            assert pool.request("PUT", "/", body=(b"x" for _ in range(3))).status == 200
        assert get(pool) == 200
        assert len(server.journal.connections) == 1
    assert in_flight == [DEFAULT_MS, 0, DEFAULT_MS, 0, DEFAULT_MS]


# -- how long --------------------------------------------------------------------------------------

#: (method, read timeout, settings) -> milliseconds, on a reused connection. Lowered only where a
#: replay is to fit into the caller's patience
LIMITS = {
    ("GET", None, ""): 15000,
    ("GET", 60, ""): 15000,
    ("GET", 30, ""): 15000,
    ("GET", 20, ""): 10000,
    ("GET", 7, ""): 3500,
    ("GET", 6, ""): 3000,
    ("GET", 4, ""): 3000,
    ("GET", 0.5, ""): 3000,
    ("HEAD", 7, ""): 3500,
    ("PUT", 7, ""): 3500,
    ("DELETE", 7, ""): 3500,
    ("POST", 7, ""): 15000,
    ("PATCH", 7, ""): 15000,
    ("GET", 7, "safe"): 3500,
    ("PUT", 7, "safe"): 15000,
    ("GET", 7, "off"): 15000,
    ("POST", 7, "evidence"): 15000,
    ("GET", Timeout(connect=2, read=7), ""): 3500,
    ("GET", Timeout(connect=7, read=60), ""): 15000,
    ("GET", Timeout(total=7), ""): 3500,
    ("GET", Timeout(), ""): 15000,
}


@pytest.mark.parametrize("case", LIMITS)
def test_limits(in_flight, case):
    method, timeout, replay = case
    with shim(replay=replay or "idempotent"), FaultServer() as server, pool_for(server) as pool:
        assert get(pool, timeout=None) == 200
        del in_flight[:]
        assert pool.request(method, "/", timeout=timeout).status == 200
        assert len(server.journal.connections) == 1
    assert in_flight == [LIMITS[case]]


#: (method, headers, body) -> whether it would be replayed, and the caller's hurry counts
IN_A_HURRY = {
    ("GET", "", None): True,
    ("PUT", "", b"x"): True,
    ("GET", "If-None-Match", None): False,
    ("PUT", "If-Match", b"x"): False,
    ("PUT", "Expect", b"x"): False,
    ("GET", "Upgrade", None): False,
    ("POST", "", b"x"): False,
    ("POST", "Idempotency-Key", b"x"): True,
}


@pytest.mark.parametrize("requests_before", [1, 3])  # from the third on they may go the short way
@pytest.mark.parametrize("case", IN_A_HURRY)
def test_only_what_would_be_replayed_fails_earlier(in_flight, case, requests_before):
    """For anything else there is no second try to make room for: the first must have its time."""
    method, name, body = case
    with shim(replay="idempotent"), FaultServer() as server, pool_for(server, timeout=7) as pool:
        for _ in range(requests_before):
            assert get(pool) == 200
        del in_flight[:]
        headers = {name: "x"} if name else {}
        assert pool.request(method, "/", headers=headers, body=body).status == 200
        assert len(server.journal.connections) == 1
    assert in_flight == [3500 if IN_A_HURRY[case] else DEFAULT_MS]


def test_a_connection_that_was_given_up(in_flight):
    """The connection object stays, and is looked at without a socket; the next one is a new one."""
    last = Respond(200, headers={"Connection": "close"})
    with shim(), FaultServer([last] * 3) as server, pool_for(server) as pool:
        for number in range(1, 4):
            assert get(pool) == 200
            assert len(server.journal.connections) == number
    assert in_flight == [DEFAULT_MS]


def test_what_is_sent_past_the_seam_of_requests(in_flight):
    """requests before 2.29 streams a body like this; nobody knows how long it will take."""
    with shim(), FaultServer() as server, pool_for(server) as pool:
        for _ in range(3):
            assert get(pool) == 200
        conn = pool._get_conn()
        conn.putrequest("POST", "/")
        conn.putheader("Transfer-Encoding", "chunked")
        conn.endheaders()
        conn.send(b"1\r\nx\r\n0\r\n\r\n")
        response = http.client.HTTPConnection.getresponse(conn)
        assert response.status == 200
        response.read()
        pool._put_conn(conn)
        assert get(pool) == 200
        assert len(server.journal.connections) == 1
    assert in_flight == [DEFAULT_MS, 0, DEFAULT_MS]


def test_audit_takes_back_what_was_set(in_flight):
    with shim(), FaultServer() as server, pool_for(server) as pool:
        for _ in range(3):
            assert get(pool) == 200
        stalepool.install(mode="audit")
        for _ in range(3):
            assert get(pool) == 200
        assert len(server.journal.connections) == 1
    assert in_flight == [DEFAULT_MS, 0]


def test_a_setting_that_is_lower_already(in_flight):
    with shim(replay="idempotent", user_timeout_s=2), FaultServer() as server:
        with pool_for(server, timeout=3) as pool:
            assert [get(pool), get(pool)] == [200, 200]
    assert in_flight == [2000]


def test_a_fresh_connection_has_no_replay_to_make_room_for(in_flight):
    with shim(replay="idempotent"), FaultServer() as server, pool_for(server, timeout=7) as pool:
        assert get(pool) == 200
    assert in_flight == [DEFAULT_MS]


def test_the_settings_of_now_count(in_flight):
    with shim(), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        stalepool.install(**CHECKOUT_ALONE, user_timeout_s=7.5)
        assert get(pool) == 200
        stalepool.install(**CHECKOUT_ALONE, user_timeout_s="off")
        assert get(pool) == 200
        assert len(server.journal.connections) == 1
    assert in_flight == [DEFAULT_MS, 7500, 0]


# -- left alone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"user_timeout_s": "off"}, {"mode": "audit"}], ids=str)
def test_off(in_flight, settings):
    with shim(**settings), FaultServer() as server, pool_for(server) as pool:
        assert [get(pool), get(pool)] == [200, 200]
    assert in_flight == [0]


def test_an_applications_own_value_stays(in_flight):
    options = setting_it_oneself(APPLICATIONS_MS)
    with shim(replay="idempotent"), FaultServer() as server:
        with pool_for(server, socket_options=options, timeout=7) as pool:
            for _ in range(2):
                assert get(pool) == 200
                assert pool.request("POST", "/", body=(b"x" for _ in range(3))).status == 200
    assert in_flight == [APPLICATIONS_MS]


def test_an_applications_own_value_after_a_replay(in_flight):
    """The replay's connection is a new one, and has that value as well."""
    options = setting_it_oneself(APPLICATIONS_MS)
    with shim(replay="idempotent"), FaultServer([Respond(200), Close()]) as server:
        with pool_for(server, socket_options=options) as pool:
            assert [get(pool), get(pool)] == [200, 200]
            assert pool.request("POST", "/", body=(b"x" for _ in range(3))).status == 200
            assert len(server.journal.connections) == 2
    assert in_flight == [APPLICATIONS_MS]


def test_an_applications_own_value_on_a_connection_from_before(in_flight):
    with FaultServer() as server:
        with pool_for(server, socket_options=setting_it_oneself(APPLICATIONS_MS)) as pool:
            with stock():
                assert get(pool) == 200
            with shim():
                assert [get(pool), get(pool)] == [200, 200]
    assert in_flight == [APPLICATIONS_MS]


def test_a_connection_from_before(in_flight):
    with FaultServer() as server, pool_for(server) as pool:
        with stock():
            assert get(pool) == 200
        with shim():
            assert [get(pool), get(pool)] == [200, 200]
    assert in_flight == [0, DEFAULT_MS]


def test_where_there_is_no_such_option(in_flight, monkeypatch):
    monkeypatch.setattr(patience, "_TCP_USER_TIMEOUT", None)
    with shim(), FaultServer() as server, pool_for(server) as pool:
        assert [get(pool), get(pool)] == [200, 200]
        assert stalepool.snapshot()["fallbacks"] == {}
    assert in_flight == [0]


def test_where_the_kernel_does_not_know_it(in_flight, monkeypatch):
    monkeypatch.setattr(patience, "_TCP_USER_TIMEOUT", 9999)
    with shim(), FaultServer() as server, pool_for(server) as pool:
        assert [get(pool), get(pool)] == [200, 200]
        assert stalepool.snapshot()["fallbacks"] == {}
    assert in_flight == [0]


def test_af_unix():
    with shim(), FaultServer(family=socket.AF_UNIX) as server, pool_for(server) as pool:
        assert [get(pool), get(pool)] == [200, 200]
        assert pool.request("POST", "/", body=b"x").status == 200
        assert stalepool.snapshot()["fallbacks"] == {}
        assert len(server.journal.connections) == 1
