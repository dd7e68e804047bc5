"""Which exceptions are foreign: they are the caller's, wherever in ours they are raised."""

from __future__ import annotations

import types
from typing import Any, Callable

import pytest

import injection
import lanes
from stalepool import fallback, foreign
from worlds import WITH_TESTS

#: packages whose code runs because we call it
CALLED = [
    *("stalepool", "urllib3", "http", "email", "socket", "ssl", "select", "struct"),
    *("weakref", "functools", "logging", "eventlet", "gevent", "OpenSSL", "wrapt"),
    *("inspect", "importlib", "socks", "greenlet", "pytest_socket", "beartype"),
    "pip._vendor.urllib3.connection",
]


def failing_in(name: str, raised: str = "Theirs") -> Callable[[], Any]:
    """A function of a module of this name, which raises."""
    module = types.ModuleType(name)
    exec("class Theirs(Exception): pass\ndef fail(): raise %s('x')" % raised, vars(module))
    return module.fail  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CALLED)
def test_what_is_raised_by_who_we_call_is_caught(name: str) -> None:
    assert fallback.guarded("check_failed", "caught")(failing_in(name))() == "caught"


def test_what_is_raised_by_anybody_else_passes_through() -> None:
    """The interpreter called it: a signal handler, a timer, a tracer."""
    with pytest.raises(Exception, match="x"):
        fallback.guarded("check_failed")(failing_in("of_the_application"))()


def test_a_builtin_exception_is_ours_whoever_raised_it() -> None:
    """It cannot be told from one that we caused."""
    fail = failing_in("of_the_application", "ValueError")
    assert fallback.guarded("check_failed", "caught")(fail)() == "caught"


def test_a_timeout_is_the_callers() -> None:
    """Nothing that is guarded waits."""
    fail = failing_in("of_the_application", "TimeoutError")
    with pytest.raises(TimeoutError):
        fallback.guarded("check_failed")(fail)()


def test_an_exception_that_was_not_raised_is_nobodys() -> None:
    class Theirs(Exception):
        pass

    assert not foreign.is_foreign(Theirs())
    assert not foreign.is_a_sockets_timeout(None)


@pytest.mark.parametrize("scene", lanes.first(1, injection.SCENES))
def test_an_exception_at_any_line_of_ours_reaches_the_caller(
    run_python: Callable[..., Any], scene: str
) -> None:
    script = "import sys; from support import injection; injection.injected(sys.argv[1])"
    seen = run_python(script, scene, env=WITH_TESTS, flags=["-Wignore"])
    assert seen["lost"] == [] and seen["broken"] == []
    assert seen["injected"] > 50
