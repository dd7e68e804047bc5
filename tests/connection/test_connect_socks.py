"""Through a SOCKS5 proxy: urllib3 opens such a connection by a ``_new_conn`` of its own."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Iterator, Optional, Tuple

import pytest

from gates import Gate
from outages import as_a_new_thread
from pools import counters, get, pool_for, pooled_connection, shim, stock, verdicts
from replay_tools import NO_ANSWER, outcome
from stalepool_testing import TLS, Close, FaultServer, Respond, kernel

pytest.importorskip("socks", reason="SOCKS needs PySocks")

#: what PySocks raises stands between urllib3's error and the kernel's
REFUSED = ["NewConnectionError", "ProxyConnectionError"]
WHO = {"stock": stock, "shim": lambda: shim(replay="idempotent", keepalive_idle_s=1)}


class SocksProxy(Gate):
    """A SOCKS5 proxy without passwords (RFC 1928) that leads to one server, whatever is asked."""

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        def read(size: int) -> bytes:
            return client.recv(size, socket.MSG_WAITALL)

        with contextlib.suppress(OSError, IndexError):  # the client has gone
            read(read(2)[1])  # the methods that it offers
            if self.resets:
                kernel.reset(client)
                return server.close()
            client.sendall(b"\5\0")
            kind = read(4)[3]
            read(({1: 4, 4: 16}.get(kind) or read(1)[0]) + 2)
            client.sendall(b"\5\0\0\1" + bytes(6))
        super()._relay(client, server)


@contextlib.contextmanager
def proxied(script: Any = (), tls: Optional[TLS] = None) -> Iterator[Tuple]:
    """A server, a proxy before it, and a pool of one connection through that."""
    from urllib3.contrib.socks import SOCKSProxyManager

    options = {"maxsize": 1, "retries": False, "timeout": 10.0}
    with FaultServer(script, tls=tls) as server, SocksProxy(server) as proxy:
        url = "socks5h://%s:%d" % (proxy.host, proxy.port)
        with SOCKSProxyManager(url, ca_certs=tls and tls.ca_path, **options) as manager:
            yield server, proxy, manager.connection_from_url(server.url)


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request):
    return TLS() if request.param else None


def test_keepalive_at_the_first_request(tls):
    """Stock sets none. And the connection is kept, as in stock."""
    with WHO["shim"](), proxied(tls=tls) as (server, proxy, pool):
        assert [get(pool) for _ in range(3)] == [200] * 3
        sock = pooled_connection(pool).sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
        assert counters(server)["keepalive_armed"] == 1
        assert proxy.accepted == 1
        assert verdicts(server) == {"alive": 2}


@pytest.mark.parametrize("who, end", [("stock", NO_ANSWER), ("shim", 200)])
def test_a_fin_as_the_request_arrives(tls, who, end):
    """Stock: the error."""
    with WHO[who](), proxied([Respond(200), Close()], tls) as (server, proxy, pool):
        assert get(pool) == 200
        assert outcome(pool, "GET") == end
        if who == "shim":
            assert counters(server)["replays"] == {"ok": 1}
            assert proxy.accepted == 2


def test_a_proxy_that_never_answered_is_not_waited_for():
    """Its target has answered, by another way."""
    with WHO["shim"](), proxied() as (server, proxy, pool), pool_for(server) as direct:
        assert get(direct) == 200
        proxy.shut()
        assert as_a_new_thread(outcome, pool, "GET") == REFUSED
        assert counters(server)["reconnects"] == {}


def test_a_proxy_that_resets_is_not_waited_for():
    """It listens, and will not lead to this target; waiting changes nothing of that."""
    with WHO["shim"](), proxied() as (server, proxy, pool):
        assert get(pool) == 200
        pooled_connection(pool).close()
        proxy.resets = True
        assert as_a_new_thread(outcome, pool, "GET")[0] == "NewConnectionError"
        assert counters(server)["reconnects"] == {}


@pytest.mark.parametrize("who, end", [("stock", REFUSED), ("shim", 200)])
def test_a_proxy_that_is_restarted(sleeper, who, end):
    """Stock: the connect is refused, and that is the caller's error."""
    with WHO[who](), proxied() as (server, proxy, pool):
        assert get(pool) == 200
        proxy.shut()
        sleeper.after(1, proxy.open)
        assert as_a_new_thread(outcome, pool, "GET") == end
        if who == "shim":
            assert counters(server)["reconnects"] == {"windows": 1, "ok": 1}
