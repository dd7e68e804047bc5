"""Which exceptions are foreign: they are the caller's, wherever in ours they are raised."""

import contextlib
import functools
import itertools
import sys
import types

import pytest

import lanes
import stalepool
from breaks import raises
from injection import Foreign, injecting
from pools import end_while_idle, let_pass, pooled_connection, serving
from replay_tools import after_checkout, have
from stalepool import fallback, foreign
from stalepool_testing import CloseAfter, ProcessThenClose, Respond

#: packages whose code runs because we call it
CALLED = [
    *("stalepool", "urllib3", "http", "email", "socket", "ssl", "select", "struct"),
    *("weakref", "functools", "logging", "eventlet", "gevent", "OpenSSL", "wrapt"),
    *("inspect", "importlib", "socks", "greenlet", "pytest_socket", "beartype"),
    "pip._vendor.urllib3.connection",
]

#: the module that raises, what it raises -> whether that passes through our guard
RAISED = [
    *((name, "Theirs", False) for name in CALLED),
    # the interpreter called it: a signal handler, a timer, a tracer
    ("of_the_application", "Theirs", True),
    ("of_the_application", "TimeoutError", True),  # nothing that is guarded waits
    ("of_the_application", "ValueError", False),  # it cannot be told from one that we caused
]


@pytest.mark.parametrize(("name", "raised", "passes"), RAISED)
def test_whose_exception_it_is(name, raised, passes):
    module = types.ModuleType(name)
    exec("class Theirs(Exception): pass\ndef fail(): raise %s('x')" % raised, vars(module))
    call = fallback.guarded("check_failed", "caught")(module.fail)
    if passes:
        with pytest.raises(Exception, match="x"):
            call()
    else:
        assert call() == "caught"


def test_an_exception_that_was_not_raised_is_nobodys():
    assert not foreign.is_foreign(type("Theirs", (Exception,), {})())


# -- raised in the midst of a request, as by a signal handler; in a process of its own -------------


def dies_at_first(died, request):
    """Answer, but for the first try of each path that says so."""
    if request.path.startswith("/dies") and request.path not in died:
        died.add(request.path)
        return ProcessThenClose()
    return Respond(headers={"Keep-Alive": "timeout=1"} if request.path == "/hint" else {})


def close_after_checkout(server, pool):
    """The FIN arrives between the look at checkout and the first byte."""
    after_checkout(pool, have(server, CloseAfter(0)))


#: name -> (method, path, path of the answer before, what is done meanwhile, settings)
SCENES = {
    "GET, full check": ("GET", "/", "/", lambda _, pool: let_pass(pool, 10), {}),
    "GET, sent again": ("GET", "/dies/%d", "/", lambda *_: None, {}),
    "POST, its answer lost": ("POST", "/dies/%d", "/", lambda *_: None, {}),
    "POST, moved": ("POST", "/", "/hint", lambda *_: None, {"nonidempotent_max_idle_s": 0}),
    "POST": ("POST", "/", "/", lambda *_: None, {}),
    "GET": ("GET", "/", "/", lambda *_: None, {}),
    "GET, new socket": ("GET", "/", "/", lambda _, pool: pooled_connection(pool).close(), {}),
    "GET, closed while idle": ("GET", "/", "/", end_while_idle, {}),
    "POST, closed after the checkout": ("POST", "/", "/", close_after_checkout, {}),
}


def injected(name):
    """Inject an exception at each line of ours in turn, during one request of a scene.

    Returns how many were injected, and where one did not reach the caller, or broke the pool.
    """
    unraisable = []
    sys.unraisablehook = lambda args: unraisable.append(args.exc_value)
    method, path, before, act, settings = SCENES[name]
    lost, broken = [], []
    stalepool.install(**settings)
    with serving(functools.partial(dies_at_first, set())) as (server, pool):
        place = None
        for line in itertools.count():
            try:  # whatever has happened to it, the pool goes on
                for _ in range(2):
                    assert pool.request("GET", before).status == 200
            except Exception as error:
                broken.append("%s: %r" % (place, error))
            act(server, pool)
            wanted = path.replace("%d", str(line))
            with injecting(line) as places:
                try:
                    saw = pool.request(method, wanted, body=b"1" if method == "POST" else None)
                except BaseException as error:
                    saw = error
            if not places:
                break
            (place,) = places
            if not isinstance(saw, Foreign):
                ignored = any(isinstance(error, Foreign) for error in unraisable)
                lost.append("%s: %r%s" % (place, saw, ", ignored" if ignored else ""))
            vars(pool).pop("_validate_conn", None)
            unraisable.clear()
    return {"injected": line, "lost": lost, "broken": broken}


@pytest.mark.parametrize("scene", lanes.first(1, SCENES))
def test_an_exception_at_any_line_of_ours_reaches_the_caller(call_python, scene):
    seen = call_python(injected, scene, flags=["-Wignore"])
    assert seen["lost"] == [] and seen["broken"] == []
    assert seen["injected"] > 50


def fail(error, made_of):
    try:
        raise made_of
    except OSError:
        raise error


def have_traceback(*errors):
    return [error.__traceback__ is not None for error in errors]


def test_only_what_was_raised_inside_loses_its_traceback():
    """What is being handled around it is somebody else's, who may show it."""
    inner, handled = OSError(), KeyError()
    outer = type("Unassignable", (OSError,), {"__setattr__": raises})()
    try:
        raise handled
    except KeyError:
        with contextlib.suppress(OSError):
            fail(outer, made_of=inner)
        foreign.drop_frames(outer)
    assert outer.__context__ is inner and inner.__context__ is handled
    assert have_traceback(inner, outer, handled) == [False, False, True]
    foreign.drop_frames(None)


def test_inside_its_except_clause_an_error_alone_loses_its_traceback():
    inner, outer = OSError(), OSError()
    try:
        fail(outer, made_of=inner)
    except OSError as error:
        foreign.drop_frames(error)
    assert have_traceback(inner, outer) == [True, False]
