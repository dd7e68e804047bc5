"""Through proxies: forwarded, tunnelled, TLS in TLS; a tunnel that is given up is made anew."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Callable, NamedTuple

import pytest
import urllib3

import stalepool
from pools import VERIFIES_NAMES_ALONE, await_arrival, counters, shim, stock, verdicts
from stalepool_testing import (
    TLS,
    CloseAfter,
    ConnectProxy,
    FaultServer,
    ResetAfter,
    Respond,
    SurplusWithAnswer,
    kernel,
)


class Client(NamedTuple):
    """``send()``: one GET through the proxy, its status; ``pool``: the one that it goes through."""

    send: Callable[[], int]
    pool: Any


def proxy_url(proxy):
    host = "[%s]" % proxy.host if ":" in proxy.host else proxy.host
    return "%s://%s:%d" % ("https" if proxy._tls else "http", host, proxy.port)


WHO = pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])

#: a tunnel through a proxy -> the TLS version spoken to whom, and the family
TUNNELS = {
    "CONNECT": {"server_tls": "TLSv1.3"},
    "CONNECT, IPv6": {"server_tls": "TLSv1.3", "family": socket.AF_INET6},
    "TLS in TLS": {"server_tls": "TLSv1.3", "proxy_tls": "TLSv1.3"},
}
if VERIFIES_NAMES_ALONE:
    TUNNELS = {"CONNECT": TUNNELS["CONNECT"]}
#: plain HTTP, handed on by the proxy
FORWARDING = {
    "http": {},
    "http, IPv6": {"family": socket.AF_INET6},
    "https": {"proxy_tls": "TLSv1.3"},
}


@contextlib.contextmanager
def proxied(way, script=()):
    """A proxy, a server behind it, and a client of both."""
    family = way.get("family", socket.AF_INET)
    server_tls, proxy_tls = (
        TLS(way[whom]) if whom in way else None for whom in ("server_tls", "proxy_tls")
    )
    server = FaultServer(script, tls=server_tls, family=family)
    proxy = ConnectProxy(tls=proxy_tls, family=family)
    options = {"ca_certs": TLS().ca_path, "retries": False, "timeout": 10}
    with server, proxy, urllib3.ProxyManager(proxy_url(proxy), **options) as manager:
        pool = manager.connection_from_url(server.url)
        yield proxy, server, Client(lambda: manager.request("GET", server.url).status, pool)


@pytest.mark.each_value
@pytest.mark.parametrize(
    "step, verdict",
    [(CloseAfter(0), "closed"), (ResetAfter(0), "reset")],
    ids=["close", "reset"],
)
@pytest.mark.parametrize("way", TUNNELS)
@WHO
def test_the_server_ends_the_connection(who, way, step, verdict):
    """The proxy hands the end on. The next request gets a tunnel of its own, CONNECT and all."""
    script = [Respond(200), Respond(200), step]
    with who(), proxied(TUNNELS[way], script) as (proxy, server, through):
        assert [through.send(), through.send()] == [200, 200]
        server.wait_idle_step()
        await_end(through.pool)

        assert through.send() == 200

        assert len(proxy.tunnels) == len(server.journal.connections) == 2
        if who is shim:
            assert verdicts(server) == {"alive": 1, verdict: 1}
            assert counters(server)["discards"] == 1


@pytest.mark.each_value
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("way", TUNNELS)
@WHO
def test_the_proxy_ends_the_connection(who, way, reset):
    with who(), proxied(TUNNELS[way]) as (proxy, server, through):
        for turn in (1, 2):
            assert through.send() == 200
            assert len(proxy.tunnels) == turn
            assert proxy.cut(reset=reset) == 1
            await_end(through.pool)
        if who is shim:
            assert verdicts(server) == {"reset" if reset else "closed": 1}


@pytest.mark.usefixtures("small_reads")
@pytest.mark.parametrize("way", [way for way in TUNNELS if "IPv6" not in way])
@WHO
def test_a_surplus_inside_the_tunnel(who, way):
    """In the inner TLS layer where there are two; stock takes it for the next answer."""
    script = [SurplusWithAnswer(surplus_status=404)]
    with who(), proxied(TUNNELS[way], script) as (proxy, server, through):
        statuses = [through.send(), through.send()]
        if who is stock:
            assert statuses == [200, 404]
        else:
            assert statuses == [200, 200]
            assert verdicts(server) == {"tls_pending": 1}
            assert len(proxy.tunnels) == 2


@pytest.mark.parametrize("way", [way for way in TUNNELS if "IPv6" not in way])
def test_counted_for_the_far_end(way):
    """Whoever is at fault, the origin is the server; the proxy's own entry has its own scheme."""
    with shim(), proxied(TUNNELS[way]) as (proxy, server, through):
        assert through.send() == 200
        proxy.cut()
        assert [through.send(), through.send()] == [200, 200]
        origins = stalepool.snapshot()["origins"]
        assert proxy.origin in origins
        counted = [origin for origin, entry in origins.items() if entry["checkouts"]]
        assert counted == ["https://127.0.0.1:%d" % server.port]
        assert origins[server.origin]["verdicts"] == {"closed": 1, "alive": 1}
        assert origins[server.origin]["keepalive_armed"] == 2


@pytest.mark.each_value
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("way", FORWARDING)
@WHO
def test_forwarded(who, way, reset):
    """The pooled connection is the one to the proxy, and counted for it."""
    with who(), proxied(FORWARDING[way]) as (proxy, _, through):
        assert [through.send(), through.send()] == [200, 200]
        assert len(proxy.journal.connections) == 1
        channel = proxy.channels[0]
        channel.tell(channel.reset if reset else channel.close)
        await_end(through.pool)

        assert through.send() == 200

        assert len(proxy.journal.connections) == 2
        assert [request.method for request in proxy.forwarded] == ["GET"] * 3
        if who is shim:
            assert verdicts(proxy) == {"alive": 1, "reset" if reset else "closed": 1}


def await_end(pool):
    """Wait until the FIN or RST has come all the way."""
    await_arrival(pool, events=kernel.POLLRDHUP)
