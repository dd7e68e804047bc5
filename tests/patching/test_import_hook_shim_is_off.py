"""A shim that is off says so in the log of its service, as soon as the service has one."""

from __future__ import annotations

import functools
from types import ModuleType

import pytest

import lanes
from logs import output_of
from pools import serving
from stalepool.patching import import_hook

WHY_OFF = {
    "a wrong setting": ({"STALEPOOL_MODE": "a\nb"}, "", r"STALEPOOL_MODE='a\nb' is not accepted"),
    "no wrapt": ({}, "import sys; sys.modules['wrapt'] = None\n", "the import hook failed: Modul"),
}


@pytest.mark.parametrize("name", lanes.first(1, WHY_OFF))
def test_where_it_is_off_the_services_own_log_says_so(name):
    """Once, at the first connection: at the imports nobody had set up a log yet."""
    variables, first, words = WHY_OFF[name]
    script = "for _ in range(3): pool.request('GET', '/')\nimport urllib3.connectionpool as p\n"
    script += "print(hasattr(p.HTTPConnectionPool._new_conn, '__wrapped__'))"
    with serving() as (server, _):
        out, err = output_of(script, server, first=first, **variables)
    assert out[1:] == ["False"] and len(err) == 1  # said where nobody had set up a log yet
    assert out[0].startswith("WARNING stalepool.status ")
    assert "stalepool is not active in this process: " + words in out[0]


def test_switched_on_meanwhile_it_does_not_say_that_it_is_off():
    script = "stalepool.install(mode='active')\npool.request('GET', '/')"
    with serving() as (server, _):
        out, _ = output_of(script, server, STALEPOOL_MODE="activ")
    (line,) = out
    assert line.startswith("INFO stalepool.status ")
    assert "is active" in line and "settings: the defaults" in line


BROKEN = """
    import sys, types
    import stalepool
    broken = sys.modules["stalepool.fallback"] = types.ModuleType("stalepool.fallback")
    foreign = sys.modules["stalepool.foreign"] = types.ModuleType("stalepool.foreign")
    def guarded(*args):
        raise TypeError("of a type checker that an import hook puts into each function")
    broken.guarded, foreign.is_foreign = guarded, lambda error: sys.argv[1] == "foreign"
    try:
        import urllib3
    except TypeError:
        print('"raised"')
    else:
        print('"imported"')
"""


@pytest.mark.parametrize(("whose", "ends"), [("ours", "imported"), ("foreign", "raised")])
def test_a_guard_that_is_broken_breaks_no_import(run_python, whose, ends):
    """A signal handler's exception is raised, as in stock."""
    assert run_python(BROKEN, whose) == ends


class Bare:
    """A pool that opens its connections elsewhere."""


class Wrapped:
    @functools.wraps(Bare)
    def _new_conn(self) -> None:
        pass


class BuiltIn:
    _new_conn = len


@pytest.mark.parametrize(
    "pool",
    [None, Bare, Wrapped, BuiltIn, Bare()],
    ids=["none", "elsewhere", "wrapped", "built in", "no class"],
)
def test_a_pool_that_looks_different_is_left_alone(pool):
    module = ModuleType("urllib3.connectionpool")
    module.HTTPConnectionPool = pool
    before = dict(getattr(pool, "__dict__", {}))
    import_hook._at_first_connection(module, lambda: pytest.fail("said"))
    assert dict(getattr(pool, "__dict__", {})) == before
