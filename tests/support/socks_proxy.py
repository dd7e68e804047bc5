"""A SOCKS5 proxy, and a route through it."""

import contextlib
import socket

import pytest

from replay_routes import Route
from stalepool_testing import FaultServer
from stalepool_testing.connect_proxy import relay
from stalepool_testing.listener import Listener


class SocksProxy(Listener):
    """A SOCKS5 proxy without passwords (RFC 1928) that leads to one server, whatever is asked."""

    leads_nowhere = False

    def __init__(self, server):
        self.server = server
        self.asked = []  # addresses
        super().__init__()

    def _serve(self, channel):
        read = channel._take
        read(read(2)[1])  # the methods that it offers
        if self.leads_nowhere:
            return channel.reset()
        channel.send(b"\5\0")
        kind = read(4)[3]
        self.asked.append(read({1: 4, 4: 16}.get(kind) or read(1)[0]))
        read(2)  # the port
        channel.send(b"\5\0\0\1" + bytes(6))
        with socket.create_connection((self.server.host, self.server.port)) as upstream:
            relay(channel, upstream)


@contextlib.contextmanager
def through_socks(script=(), tls=None, **options):
    """A tunnel if the server speaks TLS."""
    pytest.importorskip("socks", reason="SOCKS needs PySocks")
    from urllib3.contrib.socks import SOCKSProxyManager

    options = {"maxsize": 1, "retries": False, "timeout": 10.0, **options}
    with FaultServer(script, tls=tls) as server, SocksProxy(server) as proxy:
        url = "socks5h://%s:%d" % (proxy.host, proxy.port)
        with SOCKSProxyManager(url, ca_certs=tls and tls.ca_path, **options) as manager:
            pool = manager.connection_from_url(server.url)
            yield Route(server, proxy, server, pool, lambda method: pool.request(method, "/"))
