"""The finder, called directly, and what is said where nothing is patched.

``test_import_hook_orders.py`` has whole processes.
"""

import functools
import sys
from types import ModuleType, SimpleNamespace

import pytest
import urllib3
import wrapt

import stalepool
from breaks import breaks
from logs import output_of
from pools import serving
from stalepool.patching import import_hook
from worlds import WITH_TESTS


@pytest.fixture
def finder():
    yield import_hook._finder
    stalepool.install()


def test_what_is_not_patched_or_not_found_is_not_watched(finder):
    for name in "urllib3.util", "urllib3.no_such_module", "no_such_package.urllib3":
        assert finder.find_spec(name, urllib3.__path__) is None
    with breaks("place of a copy"):  # everybody else's imports are asked for a word alone
        assert finder.find_spec("of_no_interest") is None


def test_a_finder_that_was_taken_out_meanwhile_finds_and_patches_nothing(finder):
    """The interpreter goes on through the list that it began with, or through a load."""
    assert import_hook._Finder().retire() == []  # one that has found nothing
    stalepool.uninstall()
    assert finder.find_spec("urllib3.connectionpool", urllib3.__path__) is None
    pool = urllib3.connectionpool
    assert finder.load("urllib3.connectionpool", lambda: pool) is pool
    assert not hasattr(pool.is_connection_dropped, "__wrapped__")


#: an attribute of the finder, what stands for wrapt -> why nothing is patched
OFF = {
    "the next copy has failed": ("has_failed", True, wrapt, None),
    "no wrapt": ("loaded", None, None, "wrapt cannot be imported"),
    # it has no spec, so it must not be looked up
    "a stub of wrapt": ("loaded", None, ModuleType("wrapt"), None),
}


@pytest.mark.parametrize("name", OFF)
def test_whether_it_is_at_work(name, finder, monkeypatch):
    attribute, value, module, why = OFF[name]
    monkeypatch.setattr(finder, attribute, value)
    monkeypatch.setitem(sys.modules, "wrapt", module)
    assert (finder.is_at_work(), finder.why_off()) == (why is None, why)


# -- a shim that is off says so in the log of its service, as soon as the service has one

WARNING = "WARNING stalepool.status import_hook.py stalepool is not active in this process: "
FAILED = WARNING + "the import hook failed: "
APPLY = "import stalepool.patching.patches as p; p.apply = lambda module: 1 / 0\n"
LOOKUP = "import in_client as c; c.at_lookup('stalepool.connection.checkout', lambda: 1 / 0)\n"
ASK = "\nfor _ in range(3): print(pool.request('GET', '/').status)"

#: variables, what comes first -> what is logged
SAID = {
    "a wrong setting": ({"STALEPOOL_MODE": "a\nb"}, "", WARNING + r"STALEPOOL_MODE='a\nb' is"),
    "no wrapt": ({}, "import sys; sys.modules['wrapt'] = None\n", FAILED + "ModuleNotFoundError"),
    "a broken module": ({}, LOOKUP, FAILED + "ZeroDivisionError"),
    "patches that cannot be applied": ({}, APPLY, FAILED + "ZeroDivisionError"),
}


@pytest.mark.parametrize("name", SAID)
def test_whatever_goes_wrong_requests_are_made_and_it_is_said(name):
    """Once, at the first connection; and at the imports, where nobody has set up a log yet."""
    variables, first, said = SAID[name]
    with serving() as (server, _):
        out, err = output_of(ASK, server, first=first, **WITH_TESTS, **variables)
    assert out[0].startswith(said), out
    assert (out[1:], len(err)) == (["200"] * 3, 1), (out, err)
    assert said.startswith(FAILED) is ("hook_failed" in err[0])


def test_switched_on_meanwhile_it_does_not_say_that_it_is_off():
    with serving() as (server, _):
        script = "stalepool.install(mode='active')" + ASK
        (line, *_), _ = output_of(script, server, STALEPOOL_MODE="activ")
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


class Elsewhere:
    """A pool that opens its connections elsewhere."""


class Wrapped:
    @functools.wraps(Elsewhere)
    def _new_conn(self):
        pass


@pytest.mark.parametrize("pool", [None, Elsewhere, Wrapped])
def test_a_pool_that_looks_different_is_left_alone(pool):
    before = dict(getattr(pool, "__dict__", {}))
    import_hook._at_first_connection(SimpleNamespace(HTTPConnectionPool=pool), None)
    assert dict(getattr(pool, "__dict__", {})) == before
