"""Classes that an application makes of urllib3's: what they do goes on working, fault or not."""

from __future__ import annotations

import contextlib
import functools
import http.client

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import stalepool
from pools import counters, shim, stock
from replay_tools import ECHO, after_checkout, have, prime, send
from stalepool_testing import TLS, Close, CloseAfter, ConnectProxy, FaultServer, kernel

shim_with_all = functools.partial(
    shim, replay="idempotent", presend_check=True, nonidempotent_max_idle_s=0
)
both = pytest.mark.parametrize("who", [stock, shim_with_all], ids=["stock", "shim"])


@contextlib.contextmanager
def pool_of(connection_class, *steps, times=1):
    with FaultServer([ECHO] * times + list(steps), default=ECHO) as server:
        with urllib3.HTTPConnectionPool(
            server.host, server.port, maxsize=1, retries=False, timeout=10
        ) as pool:
            pool.ConnectionCls = connection_class
            prime(pool, times=times)
            yield server, pool


# -- errors of its own -----------------------------------------------------------------------------


class OwnError(Exception):
    pass


class Translating(HTTPConnection):
    def request(self, *args, **kwargs):
        try:
            return super().request(*args, **kwargs)
        except Exception as error:
            raise OwnError from error


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_the_presend_check_found_reaches_us_through_it(method, times):
    with shim_with_all(), pool_of(Translating, times=times) as (server, pool):
        after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
        assert send(server, pool, method)[:2] == (200, True)
        assert counters(server)["moved"] == {"presend_check": 1}


# -- a response of its own -------------------------------------------------------------------------


class Slim:
    """With what urllib3 1.26 takes of a response, and no more."""

    def __init__(self, sock, *args, **kwargs):
        self._whole = http.client.HTTPResponse(sock, *args, **kwargs)

    def __getattr__(self, name):
        if name == "headers":
            raise AttributeError(name)
        return getattr(self._whole, name)


class WithSlimResponses(HTTPConnection):
    response_class = Slim


@pytest.mark.skipif(urllib3.__version__ >= "2", reason="urllib3 2.x makes a response of its own")
@both
def test_a_response_without_headers(who):
    with who(), pool_of(WithSlimResponses) as (server, pool):
        for _ in range(4):
            assert pool.request("GET", "/").status == 200
        assert len(server.journal.connections) == 1


# -- a tunnel of its own ---------------------------------------------------------------------------


@contextlib.contextmanager
def tunnelling_by_itself(tls, *steps):
    """A pool without a proxy whose connections set their tunnel themselves."""
    base = urllib3.HTTPConnectionPool if tls is None else urllib3.HTTPSConnectionPool
    options = {} if tls is None else {"ca_certs": tls.ca_path}
    with FaultServer([ECHO, *steps], tls=tls, default=ECHO) as server, ConnectProxy() as proxy:

        class Own(base):
            def _new_conn(self):
                conn = super()._new_conn()
                conn.set_tunnel(server.host, server.port)
                return conn

        with Own(proxy.host, proxy.port, maxsize=1, retries=False, timeout=10, **options) as pool:
            prime(pool)
            yield server, proxy, pool


@both
@pytest.mark.parametrize("tls", [None, TLS()], ids=["plain", "tls"])
def test_a_tunnel_that_the_application_opens(who, tls):
    """A fresh socket is opened by its connection's own ``connect()``, through the same tunnel."""
    with who(), tunnelling_by_itself(tls, ECHO, Close()) as (server, proxy, pool):
        assert send(server, pool, "POST")[:2] == (200, True)  # moves: asked to at once
        outcome = send(server, pool, "PUT")  # its connection ends
        if who is stock:
            assert (outcome.status, outcome.arrivals) == (None, 1)
            assert len(proxy.tunnels) == 1
        else:
            assert (outcome.status, outcome.is_own_answer, outcome.arrivals) == (200, True, 2)
            assert len(proxy.tunnels) == 3
            assert stalepool.snapshot()["fallbacks"] == {}
