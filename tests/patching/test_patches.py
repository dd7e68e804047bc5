"""The table of patches: each is in force, and what looks different is left alone."""

import importlib

import pytest
import urllib3

import stalepool
from pools import serving
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
def test_each_patch(module, owners, attribute):
    pytest.importorskip("socks" if "socks" in module else module.partition(".")[0])
    loaded = importlib.import_module(module)
    found = [getattr(loaded, name) for name in owners.split() if hasattr(loaded, name)]
    assert hasattr(vars([*found, loaded][0])[attribute], "__wrapped__")
    assert len(IN_FORCE) == len(patches.PATCHES)


def test_an_answer_to_no_replay_says_so():
    with serving() as (_, pool):
        assert pool.request("GET", "/").stalepool_replayed is False


class Stranger:
    """Answers to every name, as a mock does: what it wraps wraps another, without an end."""

    def __getattr__(self, name):
        return Stranger()


def test_what_looks_different():
    """What urllib3 might have in place of ``f(conn)``, and how it differs."""
    functions = {
        "the same": (lambda conn: None, ""),
        "whatever it is handed": (lambda *args: None, ""),
        "a keyword for any": (lambda conn, **more: None, ""),
        "gone": (None, "not there"),
        "a number": (7, "not a function"),
        "a stranger": (Stranger(), "not a function"),
        "renamed": (lambda anything: None, "takes (anything)"),
        "more": (lambda conn, more=None: None, "takes (conn, more)"),
        "less": (lambda: None, "takes ()"),
    }
    for name, (function, problem) in functions.items():
        assert patches._unexpected(function, ("conn",)) == problem, name


def test_one_that_somebody_has_taken_back_is_put_in_again():
    pool = urllib3.connectionpool
    ours = pool.is_connection_dropped
    pool.is_connection_dropped = ours.__wrapped__
    stalepool.install()
    assert pool.is_connection_dropped not in (ours, ours.__wrapped__)
