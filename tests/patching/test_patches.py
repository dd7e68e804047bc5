"""The table of patches: each is in force, and what looks different is left alone."""

from __future__ import annotations

import functools
import importlib
from typing import Any, Dict, Tuple

import pytest
import urllib3

import stalepool
from pools import serving, stock
from stalepool.patching import patches

#: (module, the classes one of which has it, attribute): all that is replaced or added
IN_FORCE = [
    ("urllib3.connectionpool", "", "is_connection_dropped"),
    ("urllib3.connectionpool", "HTTPConnection", "_new_conn"),
    ("urllib3.connectionpool", "HTTPConnection", "send"),
    ("urllib3.connectionpool", "HTTPConnection", "response_class"),
    ("urllib3.connectionpool", "HTTPResponse BaseHTTPResponse", "stalepool_replayed"),
    ("urllib3.contrib.socks", "SOCKSConnection", "_new_conn"),
    ("keystoneauth1.session", "Session", "request"),
]


@pytest.mark.parametrize(("module", "owners", "attribute"), IN_FORCE)
def test_each_patch(module: str, owners: str, attribute: str) -> None:
    pytest.importorskip("socks" if "socks" in module else module.partition(".")[0])
    loaded = importlib.import_module(module)
    names = [name for name in owners.split() if hasattr(loaded, name)]
    owner = getattr(loaded, names[0]) if owners else loaded
    assert hasattr(vars(owner)[attribute], "__wrapped__")
    with stock():
        own = vars(owner).get(attribute)
        assert not hasattr(own, "__wrapped__") or owners == "Session"  # positional's own wrapper
    assert len(IN_FORCE) == len(patches.PATCHES)


def test_an_answer_to_no_replay_says_so() -> None:
    with serving() as (_, pool):
        assert pool.request("GET", "/").stalepool_replayed is False


#: what urllib3 might have in place of ``f(conn)`` -> how it differs
FUNCTIONS: Dict[str, Tuple[Any, str]] = {
    "the same": (lambda conn: None, ""),
    "whatever it is handed": (lambda *args: None, ""),
    "a keyword for any": (lambda conn, **more: None, ""),
    "gone": (None, "not there"),
    "a number": (7, "not a function"),
    "renamed": (lambda anything: None, "takes (anything)"),
    "more": (lambda conn, more=None: None, "takes (conn, more)"),
    "less": (lambda: None, "takes ()"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_looks_different(name: str) -> None:
    function, problem = FUNCTIONS[name]
    assert patches._unexpected(function, ("conn",)) == problem


def test_a_wrapper_that_does_not_show_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """urllib3 stays as the other tool has left it: ours is in there, as a pass-through."""
    pool = urllib3.connectionpool
    theirs = functools.partial(pool.is_connection_dropped)
    monkeypatch.setattr(pool, "is_connection_dropped", theirs)
    assert stalepool.uninstall() == ["urllib3.connectionpool.is_connection_dropped"]
    stalepool.install()
    assert pool.is_connection_dropped is theirs
    monkeypatch.undo()
    assert stalepool.uninstall() == []
    stalepool.install()


def test_one_that_somebody_has_taken_back_is_put_in_again() -> None:
    pool = urllib3.connectionpool
    ours = pool.is_connection_dropped
    pool.is_connection_dropped = ours.__wrapped__
    stalepool.install()
    assert pool.is_connection_dropped not in (ours, ours.__wrapped__)
