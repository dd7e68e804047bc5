"""Which exceptions are foreign: they are the caller's, wherever in ours they are raised."""

import types

import pytest

import injection
import lanes
from stalepool import fallback, foreign

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
    assert not foreign.is_socket_timeout(None)


@pytest.mark.parametrize("scene", lanes.first(1, injection.SCENES))
def test_an_exception_at_any_line_of_ours_reaches_the_caller(run_python, scene):
    script = "import sys; from support import injection; injection.injected(sys.argv[1])"
    seen = run_python(script, scene, flags=["-Wignore"])
    assert seen["lost"] == [] and seen["broken"] == []
    assert seen["injected"] > 50
