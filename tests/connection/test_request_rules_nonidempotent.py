"""POST and PATCH leave an idle connection where the setting asks for it, from any client.

For which reasons, and how a request moves, is in ``test_request_rules_moves``. The kernel's own
clock says what is idle, as for ``max_idle_s``: ``test_full_check``.
"""

from __future__ import annotations

import contextlib
import socket

import pytest
import requests

from pools import (
    VERIFIES_NAMES_ALONE,
    UnknownSocket,
    counters,
    get,
    let_pass,
    pooled_connection,
    serving,
    shim,
    verdicts,
)
from replay_routes import proxied
from replay_tools import reused
from stalepool_testing import TLS


def in_place(max_idle_s, **settings):
    return shim(nonidempotent_max_idle_s=max_idle_s, **settings)


def moved(server):
    return counters(server).get("moved", {}).get("idle_setting", 0)


def rode(server):
    """The connection that the last request came on."""
    return server.journal[-1].connection


@contextlib.contextmanager
def by_ipv6():
    with serving(family=socket.AF_INET6) as (server, pool):
        yield server, lambda method: pool.request(method, "/").status


@contextlib.contextmanager
def through_a_proxy(tls=None, proxy_tls=None):
    with proxied(tls=tls, proxy_tls=proxy_tls) as way:
        yield way.proxy if tls is None else way.server, way.send


@contextlib.contextmanager
def through_requests():
    with proxied(tls=TLS()) as way, requests.Session() as session:
        session.trust_env = False
        session.verify = TLS().ca_path
        session.proxies = {"https": way.proxy.url}
        url = way.server.url
        yield way.server, lambda method: session.request(method, url, timeout=10).status_code


WAYS = {
    "ipv6": by_ipv6,
    "forwarding proxy": through_a_proxy,
    "tls in tls": lambda: through_a_proxy(TLS(), TLS()),
    "requests, tunnel": through_requests,
}
if VERIFIES_NAMES_ALONE:
    del WAYS["tls in tls"]


@pytest.mark.parametrize("way", WAYS)
def test_by_every_way(way):
    """Stock: all on one connection. A forwarding proxy's counts, not the one behind it."""
    with in_place(0), WAYS[way]() as (origin, send):
        assert [send(method) for method in ("GET", "PUT", "POST", "PATCH")] == [200] * 4
        assert len(origin.journal.connections) == 3
        assert moved(origin) == 2
        assert verdicts(origin) == {"alive": 3}


def test_audit_moves_nothing():
    """It counts what active mode would have moved."""
    with in_place(0, mode="audit"), reused() as (server, pool):
        assert pool.request("POST", "/").status == 200
        assert (rode(server), moved(server)) == (0, 1)


def test_a_socket_of_unknown_kind():
    """Its idle time counts from the last answer, too."""
    with in_place(1), reused() as (server, pool):
        conn = pooled_connection(pool)
        conn.sock = UnknownSocket(conn.sock)
        assert get(pool) == 200
        let_pass(pool, 1)
        assert pool.request("POST", "/", body=b"x").status == 200
        assert moved(server) == 1


def test_the_callers_timeout_is_on_the_fresh_socket():
    with in_place(0), serving(timeout=7.5) as (server, pool):
        assert [get(pool), pool.request("POST", "/").status] == [200, 200]
        assert rode(server) == 1
        assert pooled_connection(pool).sock.gettimeout() == 7.5
        assert pooled_connection(pool).timeout == 7.5
