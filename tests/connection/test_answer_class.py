"""Response classes of others in http.client's place."""

import abc
import functools
import gc
import http.client
import weakref

import pytest
from urllib3.connection import HTTPConnection

from pools import counters, shim
from replay_tools import ECHO, reused, send
from stalepool_testing import Close


class Final(http.client.HTTPResponse):
    def __init_subclass__(cls, **options):
        raise ValueError("final")


class Meta(abc.ABCMeta):
    def __new__(cls, name, bases, namespace):
        assert len(bases) == 1, "one base"
        return super().__new__(cls, name, bases, namespace)


class Proxy:
    """Has no ``begin`` of its own."""

    __class__ = property(lambda self: http.client.HTTPResponse)

    def __init__(self, *args, **kwargs):
        self.whole = http.client.HTTPResponse(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.whole, name)


#: what stands in the place of http.client's response class; and whether a request is sent once
#: more: not where ours cannot be made of it. On an instance: see ``test_state_foreign_patches``
CLASSES = {
    "Own": (type("Own", (http.client.HTTPResponse,), {}), True),
    "Final": (Final, False),
    "of Meta": (Meta("OfMeta", (http.client.HTTPResponse,), {}), False),
    "Proxy": (Proxy, False),
    "a function": (staticmethod(functools.partial(http.client.HTTPResponse)), False),
    # somebody has read it off urllib3's class, and keeps it on http.client's
    "ours": (None, True),
}


@pytest.mark.parametrize("cls, is_saved", CLASSES.values(), ids=CLASSES)
def test_a_class_of_somebody_else(cls, is_saved, monkeypatch):
    with shim(replay="idempotent"):
        cls = cls or HTTPConnection.response_class
        monkeypatch.setattr(http.client.HTTPConnection, "response_class", cls)
        # what is a class may be inherited from
        assert isinstance(HTTPConnection.response_class, type) is isinstance(cls, type)
        with reused(ECHO, Close(), times=3) as (server, pool):
            assert send(server, pool, "GET")[:2] == (200, True)
            outcome = send(server, pool, "GET")
            if is_saved:
                assert outcome[:4] == (200, True, None, 2)
            else:
                assert isinstance(outcome.error.__context__, http.client.RemoteDisconnected)
                assert outcome.arrivals == 1
            assert send(server, pool, "GET")[:2] == (200, True)  # and it goes on living
            assert len(server.journal.connections) == 2
            assert counters(server)["replays_refused"] == {}


def test_classes_of_one_test_each_do_not_pile_up(monkeypatch):
    """A recorder may set a class of its own in each test."""
    alive = []
    with shim():
        for _ in range(300):
            own = type("Own", (http.client.HTTPResponse,), {})
            alive.append(weakref.ref(own))
            monkeypatch.setattr(http.client.HTTPConnection, "response_class", own)
            assert HTTPConnection.response_class is HTTPConnection("127.0.0.1").response_class
        monkeypatch.undo()
        del own
        gc.collect()
    assert sum(reference() is not None for reference in alive) < 100
