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


def end_by_the_server(proxy, server, reset):
    server.perform(ResetAfter(0) if reset else CloseAfter(0))


def end_by_the_proxy(proxy, server, reset):
    if proxy.tunnels:
        assert proxy.cut(reset=reset) == 1
    else:
        channel = proxy.channels[0]
        channel.tell(channel.reset if reset else channel.close)


#: way through the proxy, who ends the connection; behind a proxy that forwards it is the proxy's
ENDS = [
    *[(way, end) for way in TUNNELS for end in (end_by_the_server, end_by_the_proxy)],
    *[(way, end_by_the_proxy) for way in FORWARDING],
]


@pytest.mark.each_value
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("way, end", ENDS)
@WHO
def test_an_end(who, way, end, reset):
    """The next request gets a connection of its own, with CONNECT and all.

    A tunnel is counted for the server, whoever is at fault; what is forwarded, for the proxy. The
    proxy's own entry has its own scheme.
    """
    with who(), proxied({**TUNNELS, **FORWARDING}[way]) as (proxy, server, through):
        assert [through.send(), through.send()] == [200, 200]
        end(proxy, server, reset)
        await_arrival(through.pool, events=kernel.POLLRDHUP)  # it has come all the way

        assert through.send() == 200

        assert len(proxy.tunnels) == (2 if way in TUNNELS else 0)
        assert [entry.method for entry in proxy.forwarded] == ["GET"] * (0 if proxy.tunnels else 3)
        origin = server if way in TUNNELS else proxy
        assert len(origin.journal.connections) == 2
        if who is shim:
            assert verdicts(origin) == {"alive": 1, "reset" if reset else "closed": 1}
            assert counters(origin)["discards"] == 1
            assert counters(origin)["keepalive_armed"] == 2
            origins = stalepool.snapshot()["origins"]
            assert proxy.origin in origins
            assert [name for name in origins if origins[name]["checkouts"]] == [origin.origin]


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
