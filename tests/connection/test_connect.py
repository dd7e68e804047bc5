"""Opening a socket: by name or by address, through SOCKS, too."""

import socket

import pytest
import urllib3

from pools import UnknownSocket, counters, get, pooled_connection, serving, shim, verdicts
from replay_routes import SocksProxy, through_socks
from stalepool_testing import TLS, Close, FaultServer, Respond


def test_a_socket_beside_a_living_one_is_opened_without_a_look_up(connects):
    """TLS has to do with the name all the same: the certificate is checked."""
    options = {"retries": False, "ca_certs": TLS().ca_path}
    with shim(nonidempotent_max_idle_s=0), FaultServer(tls=TLS()) as server:
        with urllib3.HTTPSConnectionPool("localhost", server.port, **options) as pool:
            assert [pool.request("POST", "/").status for _ in range(2)] == [200, 200]
            assert pooled_connection(pool).sock.server_hostname == "localhost"  # SNI
        assert connects.hosts == ["localhost", "127.0.0.1"]
        assert len(server.journal.connections) == 2


def test_a_socket_of_an_unknown_kind_is_left_alone(monkeypatch, pretend_fork):
    pretend_fork()
    create = urllib3.util.connection.create_connection
    of_unknown_kind = lambda *args, **more: UnknownSocket(create(*args, **more))  # noqa: E731
    monkeypatch.setattr("urllib3.util.connection.create_connection", of_unknown_kind)
    with shim(), serving() as (_, pool):
        assert get(pool) == 200


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
