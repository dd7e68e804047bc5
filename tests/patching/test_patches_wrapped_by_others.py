"""Wrappers of others, put there before or after ours, undone before or after ours."""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any, List, Set, Tuple

import pytest
import urllib3
import wrapt

import stalepool
from in_client import attributes, wrappings
from pools import forget_what_was_counted, get, serving, stock
from stalepool import fallback
from stalepool_testing import Close, Respond, Step

COPY = urllib3.connectionpool


def by_wrapt(owner: Any, name: str, calls: List[str]) -> Any:
    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append(name)
        return wrapped(*args, **kwargs)

    return wrapt.FunctionWrapper(inspect.getattr_static(owner, name), call)


def opaque(owner: Any, name: str, calls: List[str]) -> Any:
    original = getattr(owner, name)

    def theirs(*args: Any) -> Any:
        calls.append(name)
        return original(*args)

    return theirs


def by_functools(owner: Any, name: str, calls: List[str]) -> Any:
    return functools.wraps(getattr(owner, name))(opaque(owner, name, calls))


def subclass(owner: Any, name: str, calls: List[str]) -> Any:
    class Theirs(getattr(owner, name)):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            calls.append(name)
            super().__init__(*args, **kwargs)

    return Theirs


PLACES = [
    ("urllib3.connection", "HTTPConnection.send", by_wrapt),
    ("urllib3.connection", "HTTPConnection.send", opaque),
    ("urllib3.connection", "HTTPConnection.send", by_functools),
    ("urllib3.connection", "HTTPConnection._new_conn", by_wrapt),
    ("urllib3.connection", "HTTPConnection.response_class", by_wrapt),
    ("urllib3.connection", "HTTPConnection.response_class", subclass),
    ("urllib3.connectionpool", "is_connection_dropped", by_wrapt),
    ("urllib3.connectionpool", "is_connection_dropped", by_functools),
    ("http.client", "HTTPConnection.send", by_wrapt),
    ("http.client", "HTTPConnection.send", opaque),
    ("http.client", "HTTPConnection.response_class", by_wrapt),
    ("http.client", "HTTPConnection.response_class", subclass),
]

HEALTHY, FAULT = [Respond(200)] * 3, [Respond(200), Close()]
#: attribute -> how often it is called for three healthy requests
CALLS = {"send": 3, "_new_conn": 1, "response_class": 3, "is_connection_dropped": 2}


def ask(steps: List[Step]) -> Tuple[List[int], int]:
    """What each request was answered, 0 for not at all; and how many connections they took."""
    statuses = []
    with serving([*steps, Respond(200)]) as (server, pool):
        for _ in steps:
            try:
                statuses.append(get(pool))
            except urllib3.exceptions.ProtocolError:
                statuses.append(0)
        return statuses, len(server.journal.connections)


def rows(module: str, path: str, how: Any, order: str, undo: str) -> Set[Any]:
    return {(module, path, order), (how, order), undo}


@pytest.mark.each_value(by=rows)
@pytest.mark.parametrize("undo", ["ours first", "theirs first"])
@pytest.mark.parametrize("order", ["theirs on top", "theirs below"])
@pytest.mark.parametrize(("module", "path", "how"), PLACES)
def test_a_wrapper_of_others(
    module: str, path: str, how: Any, order: str, undo: str, caplog: pytest.LogCaptureFixture
) -> None:
    owner_name, _, name = path.rpartition(".")
    owner: Any = importlib.import_module(module)
    owner = getattr(owner, owner_name) if owner_name else owner
    is_around_ours = order == "theirs on top" and not module.startswith("http")
    calls: List[str] = []
    with stock(), pytest.MonkeyPatch.context() as patched:
        own = vars(owner).get(name)
        if order == "theirs on top":
            stalepool.install()
        theirs = how(owner, name, calls)
        patched.setattr(owner, name, theirs)
        stalepool.install()
        forget_what_was_counted()

        # a kept connection is reused; the fault is met by ours; theirs is called
        # (but a check below ours, which asks no other)
        is_asked = order == "theirs on top" or name != "is_connection_dropped"
        assert (ask(HEALTHY), len(calls)) == (([200] * 3, 1), CALLS[name] * is_asked)
        calls.clear()
        assert (ask(FAULT)[0], bool(calls)) == ([200, 200], is_asked)
        assert stalepool.snapshot()["totals"]["replays"] == {"ok": 1}
        assert fallback.counts() == {}

        if undo == "ours first":
            left = stalepool.uninstall()
            assert left == (["urllib3.connectionpool." + path] if is_around_ours else [])
            assert all(name in caplog.text for name in left)
        else:
            if vars(owner)[name] is theirs:
                patched.undo()
                calls.clear()
                assert (ask(FAULT)[0], calls) == ([200, 200], [])
            assert stalepool.uninstall() == []
        assert not stalepool.is_installed()

        # without ours theirs is called as before, if it is still there
        is_there = undo == "ours first" or vars(owner).get(name) is theirs
        assert (vars(owner).get(name) is theirs) == is_there
        calls.clear()
        seen = stalepool.snapshot()["totals"]
        assert (ask(HEALTHY), len(calls)) == (([200] * 3, 1), CALLS[name] * is_there)
        assert ask(FAULT)[0] == [200, 0]
        assert stalepool.snapshot()["totals"] == seen

        # switched on again: active in its place, and once only
        stalepool.install()
        again = attributes(COPY)
        stalepool.install()
        assert all(now is then for now, then in zip(attributes(COPY), again))
        if is_around_ours and is_there:
            assert vars(owner)[name] is theirs
        assert ask(FAULT)[0] == [200, 200]

        stalepool.uninstall()
        if vars(owner).get(name) is theirs:
            patched.undo()
        stalepool.install()
        assert stalepool.uninstall() == []
        assert wrappings(COPY) == {0}
        assert vars(owner).get(name) is own
        for cls in urllib3.connection.HTTPConnection, urllib3.connection.HTTPSConnection:
            assert not {"send", "response_class"} & set(vars(cls))
