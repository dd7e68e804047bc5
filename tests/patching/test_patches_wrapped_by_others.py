"""Wrappers of others, put there before or after ours, undone before or after ours."""

import importlib
import inspect

import pytest
import urllib3
import wrapt

import stalepool
from in_client import attributes, wrappings
from pools import forget_what_was_counted, get, serving, stock
from stalepool import fallback
from stalepool_testing import Close, Respond


def by_wrapt(owner, name, note):
    def call(wrapped, instance, args, kwargs):
        note(name)
        return wrapped(*args, **kwargs)

    return wrapt.FunctionWrapper(inspect.getattr_static(owner, name), call)


def opaque(owner, name, note):
    original = getattr(owner, name)
    return lambda *args: (note(name), original(*args))[1]


def subclass(owner, name, note):
    class Theirs(getattr(owner, name)):
        def __init__(self, *args, **kwargs):
            note(name)
            super().__init__(*args, **kwargs)

    return Theirs


PLACES = [
    ("urllib3.connection", "HTTPConnection.send", by_wrapt),
    ("urllib3.connection", "HTTPConnection.send", opaque),
    ("urllib3.connection", "HTTPConnection._new_conn", by_wrapt),
    ("urllib3.connection", "HTTPConnection.response_class", by_wrapt),
    ("urllib3.connection", "HTTPConnection.response_class", subclass),
    ("urllib3.connectionpool", "is_connection_dropped", by_wrapt),
    ("urllib3.connectionpool", "is_connection_dropped", opaque),
    ("http.client", "HTTPConnection.send", by_wrapt),
    ("http.client", "HTTPConnection.response_class", subclass),
]

HEALTHY, FAULT = [Respond(200)] * 3, [Respond(200), Close()]
#: attribute -> how often it is called for three healthy requests
CALLS = {"send": 3, "_new_conn": 1, "response_class": 3, "is_connection_dropped": 2}


def ask(steps):
    """What each request was answered, 0 for not at all."""
    statuses = []
    with serving([*steps, Respond(200)]) as (server, pool):
        for _ in steps:
            try:
                statuses.append(get(pool))
            except urllib3.exceptions.ProtocolError:
                statuses.append(0)
        assert steps is FAULT or len(server.journal.connections) == 1
    return statuses


def rows(module, path, how, order, undo):
    return {(module, path, order), (how, order), undo}


@pytest.mark.each_value(by=rows)
@pytest.mark.parametrize("undo", ["ours first", "theirs first"])
@pytest.mark.parametrize("order", ["theirs on top", "theirs below"])
@pytest.mark.parametrize(("module", "path", "how"), PLACES)
def test_a_wrapper_of_others(module, path, how, order, undo, caplog):
    owner_name, _, name = path.rpartition(".")
    owner = importlib.import_module(module)
    owner = getattr(owner, owner_name) if owner_name else owner
    is_on_top = order == "theirs on top"
    is_around_ours = is_on_top and not module.startswith("http")
    calls = []
    with stock(), pytest.MonkeyPatch.context() as patched:
        own = vars(owner).get(name)
        if is_on_top:
            stalepool.install()
        theirs = how(owner, name, calls.append)
        patched.setattr(owner, name, theirs)
        stalepool.install()
        forget_what_was_counted()

        # a kept connection is reused; the fault is met by ours; theirs is called
        # (but a check below ours that shows itself as urllib3's, which is not asked)
        is_asked = is_on_top or name != "is_connection_dropped" or how is opaque
        assert (ask(HEALTHY), len(calls)) == ([200] * 3, CALLS[name] * is_asked)
        assert ask(FAULT) == [200, 200]
        assert stalepool.snapshot()["totals"]["replays"] == {"ok": 1}
        assert fallback.counts() == {}

        if undo == "theirs first" and vars(owner)[name] is theirs:
            patched.undo()
            assert ask(FAULT) == [200, 200]
        left = stalepool.uninstall()
        is_left = is_around_ours and undo == "ours first"
        assert left == (["urllib3.connectionpool." + path] if is_left else [])
        assert all(name in caplog.text for name in left)
        assert not stalepool.is_installed()

        # without ours theirs is called as before, if it is still there
        is_there = vars(owner).get(name) is theirs
        assert is_there or undo == "theirs first"
        calls.clear()
        seen = stalepool.snapshot()["totals"]
        assert (ask(HEALTHY), len(calls)) == ([200] * 3, CALLS[name] * is_there)
        assert ask(FAULT) == [200, 0]
        assert stalepool.snapshot()["totals"] == seen

        # switched on again: active in its place, and once only
        stalepool.install()
        again = attributes(urllib3.connectionpool)
        stalepool.install()
        assert attributes(urllib3.connectionpool) == again
        assert not is_left or vars(owner)[name] is theirs
        assert ask(FAULT) == [200, 200]

        stalepool.uninstall()
        patched.undo()
        stalepool.install()
        assert stalepool.uninstall() == []
        assert wrappings(urllib3.connectionpool) == {0}
        assert vars(owner).get(name) is own
