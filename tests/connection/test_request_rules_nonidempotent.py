"""POST and PATCH leave a living connection where there is a reason; anything else rides it.

By every way and with every body, mostly by the setting that asks for the clock. How a request
moves is in ``test_request_rules_moves``. No sleep decides anything: the kernel's own clock says
what is idle.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import urllib3
from urllib3.exceptions import ProtocolError

from pools import (
    UnknownSocket,
    counters,
    get,
    let_pass,
    pool_for,
    pooled_connection,
    shim,
    stock,
    verdicts,
    wait_idle,
)
from stalepool import stats
from stalepool_testing import (
    TLS,
    CloseAfter,
    ConnectProxy,
    FaultServer,
    Respond,
    SlowAnswer,
    kernel,
)

#: for what waits only; a connection that is to be young must be so on a busy machine, too
MAX_IDLE_S, LONGER_S = 0.05, 0.06
BUSY_MAX_IDLE_S, BUSY_LONGER_S = 0.3, 0.35

both = pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])


def in_place(who, max_idle_s=MAX_IDLE_S, **settings):
    return who() if who is stock else shim(nonidempotent_max_idle_s=max_idle_s, **settings)


def moved(server, reason="idle_setting"):
    return counters(server).get("moved", {}).get(reason, 0)


def rode(server):
    """The connection that the last request came on."""
    return server.journal[-1].connection


# -- by every way ----------------------------------------------------------------------------------


@contextlib.contextmanager
def direct(version=None, family=socket.AF_INET):
    tls = None if version is None else TLS(version)
    with FaultServer(tls=tls, family=family) as server, pool_for(server, tls) as pool:
        yield server, lambda: pool, lambda method: pool.request(method, "/").status, server


@contextlib.contextmanager
def through_proxy(version=None, proxy_tls=None):
    tls = None if version is None else TLS(version)
    proxy_tls = None if proxy_tls is None else TLS(proxy_tls)
    with FaultServer(tls=tls) as server, ConnectProxy(tls=proxy_tls) as proxy:
        with urllib3.ProxyManager(
            proxy.url, ca_certs=TLS().ca_path, retries=False, timeout=10
        ) as client:
            yield (
                server,
                lambda: client.connection_from_url(server.url),
                lambda method: client.request(method, server.url).status,
                proxy if tls is None else server,
            )


@contextlib.contextmanager
def through_requests(version=None, through_a_tunnel=False):
    tls = None if version is None else TLS(version)
    with FaultServer(tls=tls) as server, ConnectProxy() as proxy, requests.Session() as session:
        session.trust_env = False
        session.verify = tls is None or tls.ca_path
        adapter = session.get_adapter(server.url)
        if through_a_tunnel:
            session.proxies = {"https": proxy.url}
            manager = adapter.proxy_manager_for(proxy.url)
        else:
            manager = adapter.poolmanager

        def pool():
            (key,) = manager.pools.keys()
            return manager.pools[key]

        yield (
            server,
            pool,
            lambda method: session.request(method, server.url, timeout=10).status_code,
            server,
        )


WAYS = {
    "plain": direct,
    "ipv6": lambda: direct(family=socket.AF_INET6),
    "tls1.2": lambda: direct("TLSv1.2"),
    "tls1.3": lambda: direct("TLSv1.3"),
    "tunnel": lambda: through_proxy("TLSv1.3"),
    "tls in tls": lambda: through_proxy("TLSv1.3", "TLSv1.3"),
    "requests": through_requests,
    "requests, tls": lambda: through_requests("TLSv1.3"),
    "requests, tunnel": lambda: through_requests("TLSv1.3", through_a_tunnel=True),
}


def go(way):
    """The connections that ten requests came on, and what was counted of them."""
    with WAYS[way]() as (server, pool, send, origin):
        for method in ("POST", "PATCH"):
            assert send("GET") == 200
            wait_idle(pool(), BUSY_LONGER_S)
            for each in ("GET", "PUT"):
                assert send(each) == 200
            wait_idle(pool(), BUSY_LONGER_S)
            assert send(method) == 200  # moves, where there is the shim
            assert send(method) == 200  # and rides what it moved to
        assert all(entry.processed for entry in server.journal)
        rode = [entry.connection for entry in server.journal]
        return rode, moved(origin), verdicts(origin)


@both
def test_an_old_connection(who):
    """By every way at once, so that they wait side by side."""
    TLS()  # makes the certificates, before there are threads
    with in_place(who, BUSY_MAX_IDLE_S), ThreadPoolExecutor(len(WAYS)) as executor:
        found = dict(zip(WAYS, executor.map(go, WAYS)))
    on_the_old = ([0] * 10, 0, {})
    on_new_ones = ([0, 0, 0, 1, 1, 1, 1, 1, 2, 2], 2, {"alive": 9})
    assert found == dict.fromkeys(WAYS, on_the_old if who is stock else on_new_ones)


def test_a_forwarding_proxy():
    """It opens a connection of its own for each request; what counts is the one towards it."""
    with in_place(shim), through_proxy() as (_, pool, send, proxy):
        assert send("GET") == 200
        wait_idle(pool(), LONGER_S)
        assert send("POST") == 200
        assert len(proxy.journal.connections) == 2
        assert moved(proxy) == 1


@both
def test_it_dies_as_the_request_goes_out(who, monkeypatch):
    """What it is for: no check of the old connection can tell that its FIN is under way."""
    stock_send = http.client.HTTPConnection.send
    with in_place(who), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        old = pooled_connection(pool).sock

        def send(self, data):
            if self.sock is old and server.journal.connections[0].ended is None:
                server.perform(CloseAfter(0), connection=0)
                kernel.wait_readable(old)
            stock_send(self, data)

        monkeypatch.setattr(http.client.HTTPConnection, "send", send)
        wait_idle(pool, LONGER_S)
        if who is stock:
            with pytest.raises(ProtocolError):
                pool.request("POST", "/", body=b"pay 10")
            assert server.journal.count(method="POST") == 0
        else:
            assert pool.request("POST", "/", body=b"pay 10").status == 200
            assert len(server.journal.processed("POST")) == 1


# -- the setting -----------------------------------------------------------------------------------


def test_younger_than_the_limit():
    with in_place(shim, 5), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        wait_idle(pool, LONGER_S)
        assert pool.request("POST", "/").status == 200
        assert rode(server) == 0
        assert moved(server) == 0


def test_off_is_always_reuse():
    with in_place(shim, "off"), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        wait_idle(pool, LONGER_S)
        assert pool.request("POST", "/").status == 200
        assert rode(server) == 0
        assert moved(server) == 0


def test_zero_is_never_reuse():
    with in_place(shim, 0), FaultServer() as server, pool_for(server) as pool:
        for method in ("GET", "POST", "POST", "PUT", "PATCH", "DELETE"):
            assert pool.request(method, "/").status == 200
        assert [entry.connection for entry in server.journal] == [0, 1, 2, 2, 3, 3]
        assert moved(server) == 3


@pytest.mark.parametrize("settings", [{"replay": "off"}, {"replay": "safe"}], ids=str)
def test_whatever_is_replayed(settings):
    with in_place(shim, **settings), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        wait_idle(pool, LONGER_S)
        assert pool.request("POST", "/").status == 200
        assert rode(server) == 1


def test_audit_moves_nothing():
    with in_place(shim, mode="audit"), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        wait_idle(pool, LONGER_S)
        assert pool.request("POST", "/").status == 200
        assert rode(server) == 0
        assert moved(server) == 1  # active mode would have moved it


@pytest.mark.parametrize("name", ["Idempotency-Key", "idempotency-key", b"Idempotency-Key"])
def test_an_idempotency_key_makes_it_repeatable(name):
    with in_place(shim), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        wait_idle(pool, LONGER_S)
        assert pool.request("POST", "/", headers={name: "7"}).status == 200
        assert rode(server) == 0
        assert moved(server) == 0


@pytest.mark.parametrize(
    "body",
    [None, b"pay 10", (part for part in (b"pay", b" 10"))],
    ids=["none", "bytes", "stream"],
)
def test_whatever_its_body(body):
    with in_place(shim), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        wait_idle(pool, LONGER_S)
        assert pool.request("POST", "/", body=body).status == 200
        assert rode(server) == 1
        assert server.journal[-1].body == (b"" if body is None else b"pay 10")


def test_time_counts_from_the_last_data_not_from_the_checkout():
    """An answer that streams for longer than the limit leaves a connection that is young."""
    script = [Respond(200), SlowAnswer(2 * BUSY_MAX_IDLE_S)]
    with in_place(shim, BUSY_MAX_IDLE_S), FaultServer(script) as server, pool_for(server) as pool:
        assert [get(pool), get(pool)] == [200, 200]
        assert pool.request("POST", "/").status == 200
        assert rode(server) == 0
        assert moved(server) == 0


def test_without_tcp_info_time_counts_from_the_last_answer():
    with in_place(shim, 1), FaultServer(family=socket.AF_UNIX) as server:
        with pool_for(server) as pool:
            assert get(pool) == 200
            assert pool.request("POST", "/").status == 200
            assert rode(server) == 0
            let_pass(pool, 1)
            assert pool.request("POST", "/").status == 200
            assert rode(server) == 1


def test_a_connection_that_carries_an_identity_is_not_left():
    headers = {"Authorization": "Negotiate YIIB"}
    with in_place(shim, 0), FaultServer() as server, pool_for(server) as pool:
        assert get(pool, headers=headers) == 200
        assert pool.request("POST", "/").status == 200
        assert rode(server) == 0
        assert moved(server) == 0


def test_a_connection_from_before():
    """Pooled before the shim came: it has an age as well."""
    with FaultServer() as server, pool_for(server) as pool:
        with stock():
            assert get(pool) == 200
        with in_place(shim):
            wait_idle(pool, LONGER_S)
            assert pool.request("POST", "/").status == 200
            assert rode(server) == 1
            assert moved(server) == 1


def test_a_socket_of_unknown_kind():
    """Its idle time counts from the last answer."""
    with in_place(shim, 1), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        conn = pooled_connection(pool)
        conn.sock = UnknownSocket(conn.sock)
        assert get(pool) == 200
        let_pass(pool, 1)
        assert pool.request("POST", "/", body=b"x").status == 200
        assert moved(server) == 1


def test_the_callers_timeout_is_on_the_fresh_socket():
    with in_place(shim, 0), FaultServer() as server, pool_for(server, timeout=7.5) as pool:
        assert [get(pool), pool.request("POST", "/").status] == [200, 200]
        assert rode(server) == 1
        assert pooled_connection(pool).sock.gettimeout() == 7.5
        assert pooled_connection(pool).timeout == 7.5


# -- the default: reasons --------------------------------------------------------------------------


def knowledge_of(server):
    return stats.origin("http://127.0.0.1:%d" % server.port).knowledge


@both
def test_an_announced_limit(who):
    """In its last quarter POST leaves the connection, GET does not."""
    default = Respond(200, headers={"Keep-Alive": "timeout=1"})
    with in_place(who, "auto"), FaultServer(default=default) as server, pool_for(server) as pool:
        assert get(pool) == 200
        wait_idle(pool, 0.76)
        assert get(pool) == 200
        assert rode(server) == 0
        wait_idle(pool, 0.76)
        assert pool.request("POST", "/").status == 200
        if who is stock:
            assert rode(server) == 0
        else:
            assert rode(server) == 1
            assert counters(server)["moved"] == {"announced_limit": 1}
            assert set(verdicts(server)) == {"alive"}


def test_the_setting_takes_the_place_of_the_reasons():
    default = Respond(200, headers={"Keep-Alive": "timeout=1"})
    with in_place(shim, 60), FaultServer(default=default) as server, pool_for(server) as pool:
        assert get(pool) == 200
        wait_idle(pool, 0.76)
        assert pool.request("POST", "/").status == 200
        assert rode(server) == 0


def test_ages_that_disagree_are_no_observed_limit():
    with in_place(shim, "auto"), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        for age_s in (0.05, 0.2, 0.05):
            knowledge_of(server).note_fin(age_s)
        wait_idle(pool, 0.06)
        assert pool.request("POST", "/").status == 200
        assert rode(server) == 0
