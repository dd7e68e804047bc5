"""Through a SOCKS5 proxy: urllib3 opens such a connection by a ``_new_conn`` of its own."""

from __future__ import annotations

import contextlib
import contextvars
import socket
import struct
import threading
import time
from typing import Any, Iterator, Optional, Tuple

import pytest
from urllib3.exceptions import HTTPError

from gates import Gate
from pools import counters, shim, stock, verdicts
from stalepool_testing import TLS, Close, FaultServer, Respond

pytest.importorskip("socks", reason="SOCKS needs PySocks")

ON = {
    "replay": "idempotent",
    "presend_check": True,
    "nonidempotent_max_idle_s": "auto",
    "silence_s": 1,
    "keepalive_idle_s": 1,
}
WHO = {"stock": stock, "shim": lambda: shim(**ON)}


class SocksProxy(Gate):
    """A SOCKS5 proxy without passwords (RFC 1928) that leads to one server, whatever is asked."""

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.settimeout(10)
            _, methods = struct.unpack("BB", _read(client, 2))
            _read(client, methods)
            client.sendall(b"\5\0")
            _, _, _, kind = struct.unpack("BBBB", _read(client, 4))
            size = {1: 4, 4: 16}.get(kind) or _read(client, 1)[0]
            _read(client, size + 2)
            client.sendall(b"\5\0\0\1" + bytes(6))
            client.settimeout(None)
        super()._relay(client, server)


def _read(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = sock.recv(size - len(found))
        if not data:
            raise ConnectionError("the client has gone")
        found += data
    return found


@contextlib.contextmanager
def proxied(script: Any = (), tls: Optional[TLS] = None, **options: Any) -> Iterator[Tuple]:
    """A server, a proxy before it, and a pool of one connection through that."""
    from urllib3.contrib.socks import SOCKSProxyManager

    if tls is not None:
        options["ca_certs"] = tls.ca_path
    with FaultServer(script, tls=tls) as server, SocksProxy(server) as proxy:
        url = "socks5h://%s:%d" % (proxy.host, proxy.port)
        options = {"maxsize": 1, "retries": False, "timeout": 10.0, **options}
        with SOCKSProxyManager(url, **options) as manager:
            yield server, proxy, manager.connection_from_url(server.url)


def ask(pool: Any, method: str = "GET") -> Any:
    try:
        return pool.request(method, "/", body=b"x" if method == "POST" else None).status
    except HTTPError as error:
        return type(error).__name__


def keepalive_of(pool: Any) -> Tuple[int, int]:
    conn = next(conn for conn in pool.pool.queue if conn is not None)
    return (
        conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    )


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request):
    return TLS() if request.param else None


def test_stock_sets_no_keepalive(tls):
    """Stock: none."""
    with stock(), proxied(tls=tls) as (_, _, pool):
        assert ask(pool) == 200
        assert keepalive_of(pool)[0] == 0


def test_keepalive_at_the_first_request(tls):
    """Stock sets none."""
    with WHO["shim"](), proxied(tls=tls) as (server, _, pool):
        assert ask(pool) == 200
        assert keepalive_of(pool) == (1, 1)
        assert counters(server)["keepalive_armed"] == 1


@pytest.mark.parametrize(
    "who, method, end", [("stock", "GET", "ProtocolError"), ("shim", "GET", 200)]
)
def test_a_fin_as_the_request_arrives(tls, who, method, end):
    """Stock: the error."""
    with WHO[who](), proxied([Respond(200), Close()], tls) as (server, proxy, pool):
        assert ask(pool) == 200
        assert ask(pool, method) == end
        if who == "shim":
            assert counters(server)["replays"] == {"ok": 1}
            assert proxy.accepted == 2


def test_a_post_is_not_sent_again(tls):
    """Stock: the error, and so it is here."""
    with WHO["shim"](), proxied([Respond(200), Close()], tls) as (server, _, pool):
        assert ask(pool) == 200
        assert ask(pool, "POST") == "ProtocolError"
        assert server.journal.count(method="POST") == 1


@pytest.mark.parametrize(
    "who, method, end",
    [
        ("stock", "GET", "NewConnectionError"),
        ("shim", "GET", 200),
        ("shim", "POST", 200),
    ],
)
def test_a_proxy_that_is_restarted(tls, who, method, end):
    """Stock: the connect is refused, and that is the caller's error."""
    with WHO[who](), proxied(tls=tls) as (server, proxy, pool):
        assert ask(pool) == 200
        proxy.shut()
        opening = threading.Timer(0.3, proxy.open)
        opening.start()
        # a thread waits for one window in 30 s: in a context of its own none was waited for yet
        assert contextvars.Context().run(ask, pool, method) == end
        opening.join()
        if who == "shim":
            assert counters(server)["reconnects"] == {"windows": 1, "ok": 1}


def fall(method: str, idle_s: float, timeout_s: float) -> Tuple[Any, Any, Any]:
    """The way to the proxy drops silently, and a request comes after a while."""
    with proxied(timeout=timeout_s) as (server, proxy, pool):
        assert ask(pool) == 200
        proxy.swallow()
        time.sleep(idle_s)
        end = ask(pool, method)
        return end, server.journal.count(), counters(server)


def side_by_side(*cases: Tuple) -> list:
    found: list = [None] * len(cases)

    def run(number: int) -> None:
        found[number] = fall(*cases[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.full
def test_stock_does_not_notice_a_silent_drop():
    """Stock: the caller's read timeout."""
    with stock():
        found = side_by_side(("GET", 0, 2), ("POST", 0, 2))
    assert [end for end, _, _ in found] == ["ReadTimeoutError"] * 2


@pytest.mark.full
def test_a_silent_drop():
    """Stock: the caller's read timeout; idle or not, and whatever the method."""
    with WHO["shim"]():
        idle, post, sent = side_by_side(("GET", 3.2, 20), ("POST", 3.2, 20), ("GET", 0, 20))
    for end, requests, counted in (idle, post):
        assert (end, requests) == (200, 2)
        assert (
            counted["moved"] == {"probe_unanswered": 1}
            or "probe_unanswered" in (counted["verdicts"])
        )
    end, requests, counted = sent
    assert (end, requests, counted["replays"]) == (200, 2, {"ok": 1})


def test_a_healthy_connection_is_kept(tls):
    """Stock: one connection."""
    with WHO["shim"](), proxied(tls=tls) as (server, proxy, pool):
        assert [ask(pool, method) for method in ("GET", "POST", "GET")] == [200] * 3
        assert proxy.accepted == 1
        assert verdicts(server) == {"alive": 2}
