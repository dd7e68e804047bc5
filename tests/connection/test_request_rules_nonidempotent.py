"""POST and PATCH leave an idle connection where the setting asks for it, from any client.

For which reasons, and how a request moves, is in ``test_request_rules_moves``. The kernel's own
clock says what is idle, as for ``max_idle_s``: ``test_full_check``.
"""

from __future__ import annotations

import contextlib
import socket

import pytest

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


@contextlib.contextmanager
def by_ipv6():
    with serving(family=socket.AF_INET6) as (server, pool):
        yield server, lambda method: pool.request(method, "/").status


@contextlib.contextmanager
def through_a_proxy(tls=None, proxy_tls=None):
    with proxied(tls=tls, proxy_tls=proxy_tls) as way:
        yield way.proxy if tls is None else way.server, way.send


WAYS = {
    "ipv6": by_ipv6,
    "forwarding proxy": through_a_proxy,
    "tls in tls": lambda: through_a_proxy(TLS(), TLS()),
}
if VERIFIES_NAMES_ALONE:
    del WAYS["tls in tls"]


@pytest.mark.parametrize("way", WAYS)
def test_by_every_way(way):
    """Stock: all on one connection. A forwarding proxy's counts, not the one behind it."""
    with shim(nonidempotent_max_idle_s=0), WAYS[way]() as (origin, send):
        assert [send(method) for method in ("GET", "PUT", "POST", "PATCH")] == [200] * 4
        assert len(origin.journal.connections) == 3
        assert counters(origin)["moved"] == {"idle_setting": 2}
        assert verdicts(origin) == {"alive": 3}


def test_a_socket_of_unknown_kind():
    """Its idle time counts from the last answer, too."""
    with shim(nonidempotent_max_idle_s=1), reused() as (server, pool):
        conn = pooled_connection(pool)
        conn.sock = UnknownSocket(conn.sock)
        assert get(pool) == 200
        let_pass(pool, 1)
        assert pool.request("POST", "/", body=b"x").status == 200
        assert counters(server)["moved"] == {"idle_setting": 1}


def test_the_callers_timeout_is_on_the_fresh_socket():
    """From the first byte on: it may take longer to send than to connect."""
    with shim(nonidempotent_max_idle_s=0), reused(timeout=7.5) as (server, pool):
        conn = pooled_connection(pool)
        told = (b"%g" % conn.sock.gettimeout() for _ in range(1))  # asked while it is sent
        assert pool.request("POST", "/", body=told).status == 200
        assert [(entry.connection, entry.body) for entry in server.journal][1:] == [(1, b"7.5")]
        assert (conn.sock.gettimeout(), conn.timeout) == (7.5, 7.5)
