"""In whatever order a process imports things: every live copy of urllib3 has the shim, once.

Also the finder, called directly, and what is said where nothing is patched.
"""

import functools
import re
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import urllib3

import lanes
import stalepool
from breaks import raises
from conftest import child
from pools import serving
from service_process import output_of
from stalepool.patching import import_hook


@pytest.fixture
def finder():
    yield import_hook._finder
    stalepool.install()


def test_what_is_not_patched_or_not_found_is_not_watched(finder):
    for name in "urllib3.util", "urllib3.no_such_module", "no_such_package.urllib3":
        assert finder.find_spec(name, urllib3.__path__) is None


def test_a_finder_that_comes_before_ours_is_not_asked_by_ours(finder, monkeypatch):
    """The interpreter has asked it, and it may ask all that there are, as wrapt's does."""
    monkeypatch.setattr("sys.meta_path", [SimpleNamespace(find_spec=raises), *sys.meta_path])
    assert finder.find_spec("urllib3.connectionpool", urllib3.__path__).origin is not None


def test_a_finder_that_was_taken_out_meanwhile_finds_and_patches_nothing(finder):
    """The interpreter goes on through the list that it began with, or through a load."""
    assert import_hook._Finder().retire() == []  # one that has found nothing
    stalepool.uninstall()
    assert finder.find_spec("urllib3.connectionpool", urllib3.__path__) is None
    pool = urllib3.connectionpool
    assert finder.load("urllib3.connectionpool", lambda: pool) is pool
    assert not hasattr(pool.is_connection_dropped, "__wrapped__")


def test_if_a_copy_fails_it_is_at_work_in_the_others(finder, monkeypatch):
    monkeypatch.setattr(finder, "has_failed", True)
    assert stalepool.is_installed() and finder.why_off() is None
    monkeypatch.setattr(finder, "patches", None)
    assert not stalepool.is_installed()
    assert finder.why_off().startswith("the import hook failed: ")


# -- a shim that is off says so in the log of its service, as soon as the service has one

OFF = "WARNING stalepool.status status.py stalepool is not active in this process: "
FAILED = OFF + "the import hook failed: ZeroDivisionError"
ON = r"INFO stalepool\.status .* is active .* settings: the defaults"
APPLY = "import stalepool.patching.patches as p; p.apply = lambda module: 1 / 0\n"

#: STALEPOOL_MODE, what comes first, and what before the first request -> what is logged
SAID = {
    "a wrong setting": ("a\nb", "", "", re.escape(OFF + r"STALEPOOL_MODE='a\nb' is")),
    "patches that cannot be applied": ("active", APPLY, "", re.escape(FAILED)),
    "it was switched on meanwhile": ("activ", "", "stalepool.install(mode='active')", ON),
}


@pytest.mark.parametrize("mode, first, script, said", SAID.values(), ids=SAID)
def test_requests_are_made_and_the_log_says_whether_it_is_on(mode, first, script, said):
    """Once, at the first connection; and at the imports, where nobody has set up a log yet."""
    script += "\nfor _ in range(3): print(pool.request('GET', '/').status)"
    with serving() as (server, _):
        out, err = output_of(script, server, first=first, STALEPOOL_MODE=mode)
    assert re.match(said, out[0]), out
    assert (out[1:], len(err)) == (["200"] * 3, 1), (out, err)
    assert ("hook_failed" in err[0]) is (first is APPLY)


BROKEN = """
    import sys, types
    import stalepool
    broken = sys.modules["stalepool.fallback"] = types.ModuleType("stalepool.fallback")
    foreign = sys.modules["stalepool.foreign"] = types.ModuleType("stalepool.foreign")
    def guarded(*args):
        raise TypeError("of a type checker that an import hook puts into each function")
    broken.guarded, foreign.is_foreign = guarded, lambda error: sys.argv[1] == "foreign"
    if sys.argv[1] == "nobody can say":
        del sys.modules["stalepool.foreign"]
    try:
        import urllib3
    except TypeError:
        print('"raised"')
    else:
        print('"imported"')
"""


@pytest.mark.parametrize(
    ("whose", "ends"), [("ours", "imported"), ("nobody can say", "imported"), ("foreign", "raised")]
)
def test_a_guard_that_is_broken_breaks_no_import(run_python, whose, ends):
    """A signal handler's exception is raised, as in stock."""
    assert run_python(BROKEN, whose) == ends


@pytest.mark.parametrize("new_conn", [None, print, functools.wraps(print)(lambda self: None)])
def test_a_pool_that_looks_different_is_left_alone(new_conn):
    import_hook._at_first_connection(SimpleNamespace(HTTPConnectionPool=None), None)
    pool = type("HTTPConnectionPool", (), {"_new_conn": new_conn})
    import_hook._at_first_connection(SimpleNamespace(HTTPConnectionPool=pool), None)
    assert pool._new_conn is new_conn


# -- orders, each in a process of its own ----------------------------------------------------------
#
# ``check`` (in_client.py) asserts for each copy that every patch is there exactly once, and that a
# connection which its server has closed is found closed.

ONE = "\ncheck(urllib3.connectionpool)"
GREEN = """; green = eventlet.import_patched("urllib3")
import stalepool
assert green.connectionpool is not urllib3.connectionpool
check(green.connectionpool, urllib3.connectionpool)
"""
#: the first twelve are of one road each, and the ordinary lane runs them
ORDERS = {
    **{
        "during urllib3's import, at " + name: """
            at_lookup(%r, lambda: __import__("stalepool"))
            import urllib3, stalepool
            check(urllib3.connectionpool)
            assert stalepool.snapshot()["fallbacks"] == {}  # nothing half loaded was looked at
        """
        % name
        for name in (
            "urllib3.exceptions",  # its connectionpool is found by ours
            "urllib3.connectionpool",  # and here it is not: the search for it has begun
            "urllib3.connection",  # here it is half imported
            "urllib3.poolmanager",  # it is complete
        )
    },
    "urllib3.connectionpool reloaded": """
        import importlib, stalepool, urllib3
        assert importlib.reload(urllib3.connectionpool) is urllib3.connectionpool
        check(urllib3.connectionpool)
        assert type(urllib3.connectionpool.__loader__).__module__.endswith("_external")
        stalepool.uninstall()
        assert wrappings(urllib3.connectionpool) == {0}
    """,
    "stalepool deleted and imported again": """
        import stalepool, urllib3
        forget("stalepool")
        import stalepool
        check(urllib3.connectionpool)
        assert stalepool.uninstall() == []
        assert wrappings(urllib3.connectionpool) == {0}
    """,
    "urllib3, import_patched, stalepool": "import urllib3, eventlet" + GREEN,
    # zope.interface 7.2, which gevent imports, crashes on Python 3.8 if collected half built
    "gevent": "import gc; gc.disable(); import stalepool; from gevent import monkey"
    "\nmonkey.patch_all(); import urllib3" + ONE,
    # the interpreter holds its global import lock then: two threads could lock each other out
    "nothing is imported while our finder is asked": """
        import stalepool.patching.import_hook as import_hook
        imported = []
        ask = import_hook._Finder.find_spec
        def watch(self, *args):
            before = set(sys.modules)
            spec = ask(self, *args)
            imported.extend(set(sys.modules) - before)
            return spec
        import_hook._Finder.find_spec = watch
        import urllib3
        assert wrappings(urllib3.connectionpool) == {1}
        assert not imported, imported
    """,
    "nothing is loaded while a urllib3 is half loaded": """
        seen = []
        def look():
            seen.append({m for m in sys.modules if m.partition(".")[0] == "stalepool"})
        for name in "connectionpool", "connection", "util.retry", "response", "poolmanager":
            at_lookup("urllib3." + name, look)
        import stalepool
        look()
        import urllib3
        assert len(seen) > 3 and all(found == seen[0] for found in seen), seen
        assert wrappings(urllib3.connectionpool) == {1}
    """,
    "an import that fails half way": """
        import stalepool
        at_lookup("urllib3.poolmanager", lambda: 1 / 0)
        try:
            import urllib3
        except ZeroDivisionError:
            half = sys.modules["urllib3.connectionpool"]
        assert "stalepool.fallback" not in sys.modules and "urllib3" not in sys.modules
        import urllib3
        assert sys.modules["urllib3.connectionpool"] is half
        assert wrappings(half) == {1}
    """,
    # Two threads that import for the first time meet what they would meet in stock.
    # In stock the second one may still come to grief, a few times in a hundred, when it arrives in
    # the midst of urllib3's own import. Held here is what is ours: the time that our modules take.
    "another thread imports a part while we load": """
        import threading
        import stalepool
        failed, others = [], []

        def go(name):
            try:
                __import__(name)
            except BaseException as error:
                failed.append((name, error))

        def meanwhile():
            others.append(threading.Thread(target=go, args=["urllib3.connectionpool"]))
            others[0].start()
            others[0].join(0.3)  # it waits for the package, or has failed by then

        at_lookup("stalepool.connection.checkout", meanwhile)
        go("requests")
        others[0].join(30)
        assert not failed and not others[0].is_alive(), failed
        assert wrappings(sys.modules["urllib3.connectionpool"]) == {1}
    """,
    "stalepool, urllib3, import_patched": "import stalepool, urllib3, eventlet" + GREEN,
    "patched first": "import eventlet; eventlet.monkey_patch(); import stalepool, urllib3" + ONE,
    "patched last": "import stalepool, urllib3, eventlet; eventlet.monkey_patch()" + ONE,
    "urllib3 first": "import urllib3, eventlet; eventlet.monkey_patch(); import stalepool" + ONE,
    "wrapt's hooks of others": """
        import wrapt
        seen = []
        def register(name):
            hook = lambda module: seen.append(name)
            wrapt.register_post_import_hook(hook, "urllib3.connectionpool")
        register("before")
        import stalepool
        register("after")
        import urllib3
        register("late")
        assert sorted(seen) == ["after", "before", "late"], seen
        check(urllib3.connectionpool)
    """,
    "a finder that has find_module alone": """
        import warnings
        seen = []
        class Finder:
            def find_module(self, fullname, path=None):
                seen.append(fullname)
        sys.meta_path.insert(0, Finder())
        warnings.simplefilter("ignore", ImportWarning)  # Python 3.10 and 3.11 speak of it
        import stalepool, urllib3
        assert ("urllib3.connectionpool" in seen) is (sys.version_info < (3, 12)), seen
        check(urllib3.connectionpool)
    """,
}


@pytest.mark.parametrize("order", lanes.first(12, ORDERS))
def test_every_copy_is_wrapped_once(order, run_order):
    run_order(ORDERS[order])


@pytest.mark.parametrize("order", ["stalepool, urllib3", "urllib3, stalepool"])
def test_where_imports_are_lazy(order, run_order):
    """PEP 810: Python 3.15 has the option; older ones ignore it."""
    script = """
        import %s
        stalepool.install(), urllib3.PoolManager  # so both are loaded
        check(urllib3.connectionpool)
        assert stalepool.snapshot()["fallbacks"] == {}
    """
    run_order(script % order, flags=["-X", "lazy_imports=all"])


@pytest.mark.skipif(find_spec("eventlet") is None, reason="no eventlet")
def test_eventlet_warns_of_nothing_new():
    order = "%s; import urllib3, eventlet; eventlet.monkey_patch()"
    said = [child("-Wdefault", "-c", order % line) for line in ("pass", "import stalepool")]
    assert [done.returncode for done in said] == [0, 0], said
    assert said[1].stderr.replace("import stalepool", "pass") == said[0].stderr
