"""Application subclasses of urllib3's classes keep working, with a fault and without."""

from __future__ import annotations

import abc
import copy
import copyreg
import functools
import gc
import http.client
import pickle
import weakref

import pytest
from urllib3.connection import HTTPConnection

import stalepool
from pools import counters, get, pool_for, pooled_connection, serving, shim, stock
from replay_tools import ECHO, prime, reused, send
from stalepool_testing import TLS, Close, ConnectProxy, FaultServer

shim_with_all = functools.partial(
    shim, replay="idempotent", presend_check=True, nonidempotent_max_idle_s=0
)
both = pytest.mark.parametrize("who", [stock, shim_with_all], ids=["stock", "shim"])


class Own(http.client.HTTPResponse):
    pass


class Final(http.client.HTTPResponse):
    def __init_subclass__(cls, **options):
        raise ValueError("final")


class Meta(abc.ABCMeta):
    def __new__(cls, name, bases, namespace):
        assert len(bases) == 1, "one base"
        return super().__new__(cls, name, bases, namespace)


class OfMeta(http.client.HTTPResponse, metaclass=Meta):
    pass


class Sealed(http.client.HTTPResponse):
    """Made by a function; refuses to become one of another class."""

    def __setattr__(self, name, value):
        if name == "__class__":
            raise ValueError(name)
        super().__setattr__(name, value)


class Proxy:
    """Made by a function; has no ``begin`` of its own."""

    __class__ = property(lambda self: http.client.HTTPResponse)

    def __init__(self, *args, **kwargs):
        self.whole = http.client.HTTPResponse(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.whole, name)


def function(cls):
    return staticmethod(lambda *args, **kwargs: cls(*args, **kwargs))


#: what stands in the place of http.client's response class; and whether a request is sent once
#: more: not where ours cannot be made of it. On an instance: see ``test_state_foreign_patches``
CLASSES = {
    "Own": (Own, True),
    "Final": (Final, False),
    "OfMeta": (OfMeta, False),
    "Proxy": (Proxy, False),
    "Sealed, made by a function": (function(Sealed), True),
    "Proxy, made by a function": (function(Proxy), False),
    "a partial": (staticmethod(functools.partial(http.client.HTTPResponse)), True),
    # somebody has read it off urllib3's class, and keeps it on http.client's
    "ours": (None, True),
}


@both
@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_somebody_else(who, name, monkeypatch):
    cls, is_saved = CLASSES[name]
    with who():
        cls = cls or HTTPConnection.response_class
        monkeypatch.setattr(http.client.HTTPConnection, "response_class", cls)
        with reused(ECHO, Close(), times=3) as (server, pool):
            assert send(server, pool, "GET")[:2] == (200, True)
            assert len(server.journal.connections) == 1
            outcome = send(server, pool, "GET")
            if is_saved and who is not stock:
                assert outcome[:4] == (200, True, None, 2)
            else:
                assert isinstance(outcome.error.__context__, http.client.RemoteDisconnected)
                assert outcome.arrivals == 1
            assert send(server, pool, "GET")[:2] == (200, True)  # and it goes on living
            if who is not stock:
                assert counters(server)["replays_refused"] == {}
    assert stalepool.snapshot()["fallbacks"] == {}


@both
def test_an_answer_is_pickled_and_copied_as_http_clients(who):
    """requests-cache 0.5 pickles it, after its body is read."""
    with who(), serving() as (_, pool):
        answer = pool.request("GET", "/")._original_response
        pickled = [pickle.dumps(answer, number) for number in range(2, pickle.HIGHEST_PROTOCOL + 1)]
        for made in (*map(pickle.loads, pickled), copy.copy(answer)):
            assert type(made) is http.client.HTTPResponse
            assert (made.status, made.getheaders()) == (answer.status, answer.getheaders())


@both
def test_how_answers_are_pickled_may_be_registered(who, monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, http.client.HTTPResponse, lambda it: (str, ("x",)))
    with who(), serving() as (_, pool):
        answer = pool.request("GET", "/")._original_response
        assert pickle.loads(pickle.dumps(answer)) == copy.copy(answer) == "x"


@both
def test_a_class_that_is_made_from_the_response_class(who):
    with who(), serving() as (_, pool):
        assert get(pool) == 200
        conn = pooled_connection(pool)
        own = conn.response_class = type("Own", (conn.response_class,), {})
        answer = pool.request("GET", "/")._original_response
        assert type(answer) is own and type(copy.copy(answer)) is own


@pytest.mark.parametrize("tls", [None, TLS()], ids=["plain", "tls"])
def test_a_tunnel_that_the_application_opens(tls):
    """A fresh socket is opened by its connection's own ``connect()``, through the same tunnel."""
    script = [ECHO, ECHO, Close()]
    server, proxy = FaultServer(script, tls=tls, default=ECHO), ConnectProxy()
    with shim_with_all(), server, proxy, pool_for(proxy, tls) as pool:

        class Tunnelling(pool.ConnectionCls):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.set_tunnel(server.host, server.port)

        pool.ConnectionCls = Tunnelling
        prime(pool)
        assert send(server, pool, "POST")[:2] == (200, True)  # moves: asked to at once
        assert send(server, pool, "PUT")[:4] == (200, True, None, 2)  # its connection ends
        assert len(proxy.tunnels) == 3
        assert stalepool.snapshot()["fallbacks"] == {}


def test_classes_of_one_test_each_do_not_pile_up(monkeypatch):
    """A recorder may set a class of its own in each test."""
    alive = []
    with shim():
        for _ in range(300):
            own = type("Own", (http.client.HTTPResponse,), {})
            alive.append(weakref.ref(own))
            monkeypatch.setattr(http.client.HTTPConnection, "response_class", own)
            cls = HTTPConnection("127.0.0.1").response_class
            assert issubclass(cls, own) and cls is HTTPConnection.response_class
            monkeypatch.undo()
            del own, cls
        gc.collect()
    assert sum(reference() is not None for reference in alive) < 100
