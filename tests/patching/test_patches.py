"""The table of patches: each is in force, and what looks different is left alone.

Also in a urllib3 or a Python that has changed what the patches rely on, and among the wrappers of
others, put there before or after ours, undone before or after ours.
"""

import importlib
import inspect
import shutil
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Sequence, Tuple
from unittest import mock

import pytest
import urllib3
import wrapt

import stalepool
from in_client import attributes, wrappings
from pools import forget_what_was_counted, serving, stock
from replay_tools import NO_ANSWER, outcome
from stalepool import fallback
from stalepool.patching import patches
from stalepool_testing import Close, Respond


@pytest.mark.parametrize(
    ("module", "owner", "attribute", "needs"),
    [
        ("urllib3.contrib.socks", "SOCKSConnection", "_new_conn", "socks"),
        ("keystoneauth1.session", "Session", "request", "keystoneauth1"),
        ("urllib3.response", "HTTPResponse", "stalepool_replayed", "urllib3"),
        ("urllib3.response", "HTTPResponse", "_sock_shutdown", "urllib3"),
    ],
)
def test_what_is_patched_besides_the_pool(module, owner, attribute, needs):
    pytest.importorskip(needs)
    owner = getattr(importlib.import_module(module), owner)
    assert hasattr(inspect.getattr_static(owner, attribute), "__wrapped__")


@pytest.mark.parametrize("wraps", ["ObjectProxy", "FunctionWrapper"])
def test_a_class_that_somebody_has_wrapped(wraps, run_python):
    script = """
        import json, sys, urllib3.connectionpool as pools, wrapt
        call = [lambda wrapped, _, args, kwargs: wrapped(*args, **kwargs)]
        more = call if sys.argv[1] == "FunctionWrapper" else []
        pools.HTTPConnection = getattr(wrapt, sys.argv[1])(pools.HTTPConnection, *more)
        import stalepool
        print(json.dumps(stalepool.snapshot()["unpatched"]))
    """
    assert run_python(script, wraps) == []


def test_what_somebody_has_marked_shows_the_mark_through_ours(monkeypatch):
    """A tracer marks what it has patched, so as not to patch it again."""
    with stock():
        monkeypatch.setattr(urllib3.connection.HTTPConnection.send, "traced", 1, raising=False)
        stalepool.install()
        assert urllib3.connection.HTTPConnection.send.traced == 1


def test_ours_is_not_patched_where_somebody_has_put_it():
    copy = ModuleType("acme.urllib3.connectionpool")
    vars(copy).update(urllib3.connectionpool.__dict__, __name__=copy.__name__)
    patches.apply(copy)
    assert copy.is_connection_dropped is urllib3.connectionpool.is_connection_dropped


def test_what_looks_different():
    """What urllib3 might have in place of ``f(conn)``, and how it differs."""
    functions = {
        "the same": (lambda conn: None, ""),
        "whatever it is handed": (lambda *args: None, ""),
        "a keyword for any": (lambda conn, **more: None, ""),
        "gone": (None, "not there"),
        "a number": (7, "not a function"),
        "what wraps another, which wraps another, without an end": (mock.call, "not a function"),
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
    try:
        assert pool.is_connection_dropped not in (ours, ours.__wrapped__)
        assert stalepool.uninstall() == []  # though the first one is alive
    finally:
        stalepool.install()


# -- what has changed ------------------------------------------------------------------------------
#
# Each future is the real thing with one part renamed, gone, or taking something else: each patch is
# missing in one, and in one nothing is that matters. A process with the shim does the same in it as
# one without, and one warning says what was not found.


class Future(NamedTuple):
    module: str
    said: str
    changes: Sequence[Tuple[str, str]] = ()  # what stands there, and what does then
    added: str = ""  # at the module's end
    reason: str = "patch_missing"  # of :data:`stalepool.fallback.REASONS`


NO_RESPONSE = "for name in 'HTTPResponse', 'BaseHTTPResponse': globals().pop(name, None)"
CHECK = """
_check = is_connection_dropped
def is_connection_dropped(conn, is_idle): return _check(conn)
"""
MAKE = """
from http.client import HTTPResponse as _Response
def _make(raw, debuglevel=0, method=None, url=None): return _Response(raw, debuglevel, method, url)
HTTPConnection.response_class = staticmethod(_make)
"""
SOCK = """
HTTPConnection.sock = property(
    lambda self: vars(self).get("socket"), lambda self, sock: vars(self).update(socket=sock)
)
"""

POOL, CONNECTION, HTTP = "urllib3.connectionpool", "urllib3.connection", "http.client"
FUTURES = {
    "the connection has another name": Future(
        POOL, "HTTPConnection.send: not there", [], "Other = HTTPConnection; del HTTPConnection"
    ),
    "the response has another name": Future(POOL, "stalepool_replayed: not there", [], NO_RESPONSE),
    "the check is handed more": Future(
        *(POOL, "is_connection_dropped: takes (conn, is_idle)"),
        *([("is_connection_dropped(conn)", "is_connection_dropped(conn, True)")], CHECK),
    ),
    "a new connection is handed more": Future(
        *(CONNECTION, "HTTPConnection._new_conn: takes (self, more)"),
        [("_new_conn(self)", "_new_conn(self, more=None)"), ("_new_conn()", "_new_conn(None)")],
    ),
    "send is handed more": Future(
        *(HTTP, "HTTPConnection.send: takes (self, data, is_last)"),
        [("send(self, data)", "send(self, data, is_last=False)"), ("send(msg)", "send(msg, True)")],
    ),
    "an answer of another kind": Future(CONNECTION, "HTTPConnection.response_class: ", [], MAKE),
    "the socket is computed": Future(CONNECTION, "HTTPConnection", [], SOCK, "unknown_connection"),
    "begin is handed more": Future(
        *(HTTP, ""),
        [("begin(self)", "begin(self, *, most=9)"), ("response.begin()", "response.begin(most=9)")],
        reason="",
    ),
    "the answer's file is renamed": Future(HTTP, "fp", [(".fp", ".file")], reason="answer_failed"),
}

SCRIPT = """
    import json, logging.handlers, sys
    directory, module = sys.argv[1:]
    sys.path.insert(0, directory)
    log = logging.handlers.BufferingHandler(1000)  # root lets WARNING pass
    logging.getLogger().addHandler(log)
    import stalepool
    from pools import end_while_idle, serving
    from replay_tools import outcome
    from stalepool_testing import ProcessThenClose, Respond

    assert sys.modules[module].__file__.startswith(directory)
    with serving([Respond()] * 4 + [ProcessThenClose()], timeout=20.0) as (server, pool):
        answers = [outcome(pool, method) for method in ("GET", "POST", "GET")]
        end_while_idle(server, pool)
        answers += [outcome(pool, "GET") for _ in range(3)]  # the second one is not answered
        assert not server.errors
    seen = stalepool.snapshot()
    assert stalepool.uninstall() == []
    print(json.dumps([answers, [record.getMessage() for record in log.buffer], seen]))
"""


@pytest.mark.each_value(
    by=lambda name: {(FUTURES[name].reason or "patch_missing", "not there" in FUTURES[name].said)}
)
@pytest.mark.parametrize("name", FUTURES)
def test_requests_go_as_without_the_shim(name, tmp_path, run_python):
    future = FUTURES[name]
    package, _, module = future.module.partition(".")
    original = Path(importlib.import_module(package).__file__).parent
    path = Path(shutil.copytree(original, tmp_path / package)) / (module + ".py")
    source = path.read_text(encoding="utf-8")
    for old, new in future.changes:
        assert old in source, old
        source = source.replace(old, new)
    path.write_text(source + "\n" + future.added, encoding="utf-8")

    answers, said, seen = run_python(SCRIPT, tmp_path, future.module)
    # stock loses the one whose connection ended, which may be saved
    lost = [*[200] * 4, NO_ANSWER, 200]
    assert answers == [200] * 6 or (future.reason and answers == lost)
    assert seen["installed"]
    if not future.reason:  # nothing that matters has changed
        assert (said, seen["fallbacks"]) == ([], {})
        return
    assert "(%s)" % future.reason in said[0] and future.said in said[0]
    for line in said[1:]:
        # once more at the first answer, for a service that logs only by then; and what follows
        assert ("is active" in line and future.said in line) or "(requests_unseen)" in line, said
    if future.reason == "patch_missing":
        assert seen["fallbacks"]["patch_missing"] == 1
        assert any(future.said in line for line in seen["unpatched"])
        # what is left of the patches works
        is_checked = "is_connection_dropped" not in future.said
        assert seen["totals"]["verdicts"].get("closed", 0) == is_checked


# -- wrappers of others ----------------------------------------------------------------------------


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
    with serving([*steps, Respond(200)]) as (server, pool):
        answers = [outcome(pool, "GET") for _ in steps]
        assert steps is FAULT or len(server.journal.connections) == 1
    return answers


@pytest.mark.each_value(
    by=lambda module, path, how, order, undo: {(module, path, order), (how, order), undo}
)
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
        fallback.forget()
        assert (ask(HEALTHY), len(calls)) == ([200] * 3, CALLS[name] * is_there)
        assert ask(FAULT) == [200, NO_ANSWER]
        assert (stalepool.snapshot()["totals"], fallback.counts()) == (seen, {})

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
