"""Through proxies: forwarded, tunnelled, TLS in TLS; a tunnel that is given up is made anew."""

from __future__ import annotations

import socket

import pytest

import stalepool
from outages import both
from pools import VERIFIES_NAMES_ALONE, await_arrival, counters, shim, verdicts
from replay_routes import proxied
from stalepool_testing import TLS, kernel

SECURED = TLS("TLSv1.3")
#: a tunnel through a proxy: who speaks TLS, and the family
TUNNELS = {
    "CONNECT": {"tls": SECURED},
    "CONNECT, IPv6": {"tls": SECURED, "family": socket.AF_INET6},
    "TLS in TLS": {"tls": SECURED, "proxy_tls": SECURED},
}
if VERIFIES_NAMES_ALONE:
    TUNNELS = {"CONNECT": TUNNELS["CONNECT"]}
#: plain HTTP, handed on by the proxy
FORWARDING = {
    "http": {},
    "http, IPv6": {"family": socket.AF_INET6},
    "https": {"proxy_tls": SECURED},
}


def end_by_the_proxy(way, reset):
    if way.proxy.tunnels:
        assert way.proxy.cut(reset=reset) == 1
    else:
        channel = way.proxy.channels[0]
        channel.tell(channel.reset if reset else channel.close)


@pytest.mark.each_value
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("name", [*TUNNELS, *FORWARDING])
@both
def test_an_end_by_the_proxy(who, name, reset):
    """The next request gets a connection of its own, with CONNECT and all.

    An end by the server, in a tunnel, is in ``test_replay_matrix``.

    A tunnel is counted for the server, whoever is at fault; what is forwarded, for the proxy. The
    proxy's own entry has its own scheme.
    """
    with who(), proxied(**{**TUNNELS, **FORWARDING}[name]) as way:
        assert [way.send(), way.send()] == [200, 200]
        end_by_the_proxy(way, reset)
        await_arrival(way.pool, events=kernel.POLLRDHUP)  # it has come all the way

        assert way.send() == 200

        assert len(way.proxy.tunnels) == (2 if name in TUNNELS else 0)
        methods = [entry.method for entry in way.proxy.forwarded]
        assert methods == ([] if name in TUNNELS else ["GET"] * 3)
        origin = way.server if name in TUNNELS else way.proxy
        assert len(origin.journal.connections) == 2
        if who is shim:
            assert verdicts(origin) == {"alive": 1, "reset" if reset else "closed": 1}
            assert counters(origin)["discards"] == 1
            assert counters(origin)["keepalive_armed"] == 2
            origins = stalepool.snapshot()["origins"]
            assert way.proxy.origin in origins
            assert [name for name in origins if origins[name]["checkouts"]] == [origin.origin]
