"""Opening a socket: by name or by address, and with keepalive, if probes are not swallowed."""

import os
import socket

import pytest
import urllib3

import stalepool
from pools import UnknownSocket, counters, get, pool_for, pooled_connection, serving, shim, verdicts
from replay_routes import SocksProxy, through_socks
from stalepool import runtime, stats
from stalepool.connection import connect
from stalepool.connection.state import FRESH, State
from stalepool.sockets import keepalive
from stalepool.sockets.layers import layers_of
from stalepool_testing import TLS, Close, FaultServer, Respond


def test_a_socket_beside_a_living_one_is_opened_without_a_look_up(connects):
    """TLS has to do with the name all the same: the certificate is checked."""
    options = {"retries": False, "ca_certs": TLS().ca_path}
    with shim(nonidempotent_max_idle_s=0), FaultServer(tls=TLS()) as server:
        with urllib3.HTTPSConnectionPool("localhost", server.port, **options) as pool:
            assert [pool.request("POST", "/").status for _ in range(2)] == [200, 200]
        assert connects.hosts == ["localhost", "127.0.0.1"]
        assert len(server.journal.connections) == 2


def test_once_probes_are_known_to_be_swallowed_no_connection_is_probed_as_often_as_before():
    """Whatever it waits for: keepalive would end it, alive as it is. And a new one not at all."""
    with shim(), serving(maxsize=2) as (server, pool), serving() as (_, other):
        bare = [urllib3.connection.HTTPConnection(server.host, server.port) for _ in range(2)]
        for conn in bare:
            conn.sock = socket.socket()
            State(conn, FRESH)
        answers = [pool.request("GET", "/", preload_content=False) for _ in range(2)]
        assert get(other) == 200
        conns = [*(answer._connection for answer in answers), pooled_connection(other)]
        bare[0].sock.close()
        os.close(bare[1].sock.fileno())  # behind the back of the socket
        connect.note_probes_swallowed(stats.origin(server.origin), runtime.current)
        bare[1].sock.detach()
        assert [keepalive.read(layers_of(c.sock)).interval_s for c in conns] == [75, 75, 3]
        with pool_for(server) as new:
            assert get(new) == 200
            sock = pooled_connection(new).sock
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert stalepool.snapshot()["fallbacks"] == {"keepalive_failed": 1}


def test_a_socket_of_an_unknown_kind_is_left_alone(monkeypatch, pretend_fork):
    pretend_fork()
    create = urllib3.util.connection.create_connection
    of_unknown_kind = lambda *args, **more: UnknownSocket(create(*args, **more))  # noqa: E731
    monkeypatch.setattr("urllib3.util.connection.create_connection", of_unknown_kind)
    with shim(), serving() as (_, pool):
        assert get(pool) == 200
        assert stalepool.snapshot()["fallbacks"] == {}


def test_a_move_through_socks_asks_for_the_name():
    """Also if the service has the proxy's port: a TLS socket tells the address of the proxy."""
    pytest.importorskip("socks", reason="SOCKS needs PySocks")
    from urllib3.contrib.socks import SOCKSProxyManager

    tls = TLS()
    with shim(nonidempotent_max_idle_s=0), FaultServer(tls=tls) as server, SocksProxy(
        server
    ) as proxy, SOCKSProxyManager(
        "socks5h://%s:%d" % (proxy.host, proxy.port), ca_certs=tls.ca_path
    ) as manager:
        url = "https://localhost:%d/" % proxy.port
        assert [manager.request(method, url).status for method in ("GET", "POST")] == [200] * 2
        assert proxy.asked == [b"localhost"] * 2


@pytest.mark.parametrize("tls", [None, TLS()], ids=["plain", "TLS"])
def test_through_socks(tls):
    """Keepalive from the first request on, which stock lacks; a check; a replay."""
    settings = {"replay": "idempotent", "keepalive_idle_s": 1}
    with shim(**settings), through_socks([Respond()] * 3 + [Close()], tls) as way:
        assert [get(way.pool) for _ in range(3)] == [200] * 3
        sock = pooled_connection(way.pool).sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
        assert counters(way.server)["keepalive_armed"] == 1
        assert verdicts(way.server) == {"alive": 2}
        assert (get(way.pool), len(way.gate.journal.connections)) == (200, 2)
        assert counters(way.server)["replays"] == {"ok": 1}
