"""The ways from a client to a server: direct, through haproxy, through a proxy; and outages."""

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, NamedTuple

import pytest
import urllib3
from urllib3.exceptions import NewConnectionError

from pools import await_arrival, counters, pool_for, serving, shim
from stalepool.connection import connect
from stalepool_testing import TLS, ConnectProxy, FaultServer
from stalepool_testing.connect_proxy import relay
from stalepool_testing.listener import Listener

_HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive {keeps_ms}ms
frontend front
    bind fd@{fd} {tls}
    default_backend back
backend back
    server one {host}:{port}
"""


@contextlib.contextmanager
def route_to(server, name, tls, haproxy, keeps_ms, **options):
    """A pool to the server, directly or through who hands it on; its ``options``.

    To a server without TLS a proxy is the server itself: clients make no tunnels. Behind haproxy
    ``tls`` is haproxy's.
    """
    with contextlib.ExitStack() as stack:
        if name == "haproxy":
            server = stack.enter_context(through_haproxy(server, tls, haproxy, keeps_ms))
        if name != "proxy":
            pool = pool_for(server, tls, **options)
        elif tls is None:
            pool = _manager(server, **options).connection_from_url("http://far.example/")
        else:
            proxy = stack.enter_context(ConnectProxy())
            pool = _manager(proxy, **options).connection_from_url(server.url)
        yield stack.enter_context(pool)


def _manager(proxy, **options):
    options = {"ca_certs": TLS().ca_path, "retries": False, "timeout": 10.0, **options}
    return urllib3.ProxyManager(proxy.url, **options)


def as_a_new_thread(call, *args, **kwargs):
    """Call a function as a thread would that has not waited for any outage yet."""
    with pytest.MonkeyPatch.context() as patched:
        never = float("-inf"), 0.0
        patched.setitem(connect.attributes_of_thread(), connect.WAITED, never)
        return call(*args, **kwargs)


class Route(NamedTuple):
    """A client's way to a server.

    ``gate``: what it connects to, the server itself or a proxy. ``origin``: whose counters tell of
    it. ``ask``: from a method's name to the response.
    """

    server: FaultServer
    gate: Any
    origin: Any
    pool: Any
    ask: Callable[[str], Any]

    def send(self, method="GET"):
        """Send a request, each as a thread of its own; the status."""
        return int(as_a_new_thread(self.ask, method).status)

    def begin_outage(self):
        """It has answered, and refuses now; the pooled connection has noticed."""
        assert self.send() == 200
        self.gate.stop_listening()
        self.gate.close_connections()
        await_arrival(self.pool)

    def is_refused(self):
        with pytest.raises(NewConnectionError):
            self.send()

    @property
    def reconnects(self):
        return counters(self.origin).get("reconnects", {})


@contextlib.contextmanager
def direct(script=(), **options):
    with serving(script, **options) as (server, pool):
        yield Route(server, server, server, pool, lambda method: pool.request(method, "/"))


@contextlib.contextmanager
def proxied(script=(), *, tls=None, proxy_tls=None, family=socket.AF_INET, default=None):
    """Through a tunnel if the server speaks TLS; forwarded if it does not."""
    server = FaultServer(script, tls=tls, family=family, default=default)
    proxy = ConnectProxy(tls=proxy_tls, family=family)
    with server, proxy, _manager(proxy) as manager:
        origin, pool = proxy if tls is None else server, manager.connection_from_url(server.url)
        yield Route(server, proxy, origin, pool, lambda method: manager.request(method, server.url))


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


@contextlib.contextmanager
def through_haproxy(server, tls, haproxy, keeps_ms):
    """A real haproxy in front of a server without TLS; speaks TLS itself if it is told so."""
    with socket.socket() as listener, tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        values = {"keeps_ms": keeps_ms, "host": server.host, "port": server.port, "tls": ""}
        if tls is not None:
            version = tls.version
            values["tls"] = f"ssl crt {tls.cert_path} ssl-min-ver {version} ssl-max-ver {version}"
        file.write(_HAPROXY.format(fd=listener.fileno(), **values))
        file.flush()
        process = subprocess.Popen(
            [haproxy, "-q", "-db", "-f", file.name],
            pass_fds=[listener.fileno()],
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
            env={k: v for k, v in os.environ.items() if not k.startswith("HAPROXY")},
        )
        try:
            host, port = listener.getsockname()
            yield SimpleNamespace(host=host, port=port, family=socket.AF_INET)
        finally:
            process.kill()
            process.wait()


# -- outages ---------------------------------------------------------------------------------------

WINDOW_S = 0.4


def window(**settings):
    """The shim, with a short one."""
    return shim(**{"reconnect_window_s": WINDOW_S, **settings})


@contextlib.contextmanager
def outage(window_s=WINDOW_S, back_in_s=None, **options):
    """With the shim: a server that has answered, and refuses now; for so long."""
    with shim(reconnect_window_s=window_s), direct(**options) as way:
        way.begin_outage()
        if back_in_s is not None:
            threading.Timer(back_in_s, way.gate.listen).start()
        yield way


class Sleeper:
    """Stands in for the ``time`` of urllib3's retries: keeps a record, and acts after a pause.

    :ivar pauses: the seconds of each, of this thread.
    """

    def __init__(self):
        self._local = threading.local()
        self.act = lambda: None

    def __getattr__(self, name):
        return getattr(time, name)

    @property
    def pauses(self):
        return vars(self._local).setdefault("pauses", [])

    def sleep(self, seconds):
        self.pauses.append(seconds)
        time.sleep(seconds)
        self.act()

    def after(self, count, act):
        self.act = lambda: act() if len(self.pauses) == count else None
