"""In whatever order a process imports things: every live copy of urllib3 has the shim, once.

Each order runs in a process of its own. ``check`` (in_client.py) asserts for each copy that every
patch is there exactly once, and that a connection which its server has closed is found closed.
"""

from __future__ import annotations

import textwrap
from importlib.util import find_spec
from typing import Any, Callable, Dict

import pytest

import lanes
from conftest import child

#: the first twelve are of one road each, and the ordinary lane runs them
ORDERS: Dict[str, str] = {
    # -- in the middle of urllib3's import
    **{
        "during urllib3's import, at " + name: """
            at_lookup(%r, lambda: __import__("stalepool"))
            import urllib3
            check(urllib3.connectionpool)
        """
        % name
        for name in (
            "urllib3.exceptions",  # its connectionpool is found by ours
            "urllib3.connectionpool",  # and here it is not: the search for it has begun
            "urllib3.poolmanager",  # it is complete
        )
    },
    "in another thread while urllib3 is half imported": """
        import logging, threading
        arrived, go_on = threading.Event(), threading.Event()
        get_logger = logging.getLogger
        def hold(name):  # urllib3.connectionpool gets its logger before it defines anything
            if name == "urllib3.connectionpool":
                arrived.set()
                assert go_on.wait(20)
            return get_logger(name)
        logging.getLogger = hold
        importer = threading.Thread(target=__import__, args=["urllib3"])
        importer.start()
        assert arrived.wait(20)
        assert not hasattr(sys.modules["urllib3.connectionpool"], "HTTPConnectionPool")
        import stalepool
        go_on.set()
        importer.join()
        check(sys.modules["urllib3.connectionpool"])
    """,
    # -- once more
    "urllib3.connectionpool reloaded": """
        import importlib, stalepool, urllib3
        pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
        answer(pool)
        assert importlib.reload(urllib3.connectionpool) is urllib3.connectionpool
        check(urllib3.connectionpool)
        wait_for_fin(pool)
        before = deaths()
        answer(pool)
        assert deaths() == before + 1
        assert type(urllib3.connectionpool.__loader__).__module__.endswith("_external")
        stalepool.uninstall()
        assert wrappings(urllib3.connectionpool) == {0}
        pool.close()
    """,
    "stalepool deleted and imported again": """
        import stalepool, urllib3
        check(urllib3.connectionpool)
        forget("stalepool")
        import stalepool
        check(urllib3.connectionpool)
        assert stalepool.uninstall() == []
        assert wrappings(urllib3.connectionpool) == {0}
    """,
    "urllib3, import_patched, stalepool": """
        import urllib3, eventlet
        green = eventlet.import_patched("urllib3")
        assert green.connectionpool is not urllib3.connectionpool
        import stalepool
        check(green.connectionpool, urllib3.connectionpool)
    """,
    # -- by many threads
    "urllib3 imported by many threads at once": """
        import stalepool, threading
        from concurrent.futures import ThreadPoolExecutor
        start = threading.Barrier(8)
        with ThreadPoolExecutor(8) as executor:
            list(executor.map(lambda _: [start.wait(), __import__("urllib3")], range(8)))
        check(sys.modules["urllib3.connectionpool"])
    """,
    # -- what is imported meanwhile
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
        for _ in range(2):
            import urllib3
            check(urllib3.connectionpool)
            forget("urllib3")
        assert not imported, imported
    """,
    "nothing is loaded while a urllib3 is half loaded": """
        seen = []
        for name in "connectionpool", "connection", "util.retry", "response", "poolmanager":
            at_lookup("urllib3." + name, lambda: seen.append(ours()))
        def ours():
            return {m for m in sys.modules if m.partition(".")[0] in ("stalepool", "wrapt")}
        import stalepool
        before = ours()
        import urllib3
        assert seen and all(found == before for found in seen), seen
        assert {"wrapt", "stalepool.patching.patches"} <= ours()
        # a module that comes later
        for name in "connectionpool", "poolmanager":
            del sys.modules["urllib3." + name]
        import urllib3.poolmanager
        assert wrappings(sys.modules["urllib3.connectionpool"]) == {1}
    """,
    "an import that fails half way": """
        import stalepool
        def fail():
            raise LookupError("half way")
        at_lookup("urllib3.poolmanager", fail)
        try:
            import urllib3
        except LookupError:
            pass
        half = sys.modules["urllib3.connectionpool"]
        assert "wrapt" not in sys.modules and "urllib3" not in sys.modules
        import urllib3
        assert sys.modules["urllib3.connectionpool"] is half
        assert wrappings(half) == {1}
    """,
    # Two threads that import for the first time meet what they would meet in stock.
    # In stock the second one may still come to grief, a few times in a hundred, when it arrives in
    # the midst of urllib3's own import. Held here is what is ours: the time that wrapt takes.
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

        at_lookup("wrapt", meanwhile)
        go("requests")
        others[0].join(30)
        assert not failed and not others[0].is_alive(), failed
        assert wrappings(sys.modules["urllib3.connectionpool"]) == {1}
    """,
    # -- eventlet
    **{
        lines: lines + "\ncheck(urllib3.connectionpool)"
        for lines in (
            "import eventlet; eventlet.monkey_patch(); import stalepool, urllib3",
            "import stalepool, urllib3, eventlet; eventlet.monkey_patch()",
            "import urllib3, eventlet; eventlet.monkey_patch(); import stalepool",
        )
    },
    "stalepool, urllib3, import_patched": """
        import stalepool, urllib3, eventlet
        green = eventlet.import_patched("urllib3")
        assert green.connectionpool is not urllib3.connectionpool
        check(green.connectionpool, urllib3.connectionpool)
    """,
    # -- other people's hooks
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
    **{
        "another finder %s ours" % where: """
            import importlib.machinery
            seen = []
            class Other(importlib.machinery.SourceFileLoader):
                def exec_module(self, module):
                    seen.append(module.__name__)
                    super().exec_module(module)
            class Finder:
                def find_spec(self, fullname, path=None, target=None):
                    if fullname == "urllib3.connectionpool":
                        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
                        spec.loader = Other(fullname, spec.origin)
                        return spec
            %s
            import urllib3
            old = urllib3.connectionpool
            forget("urllib3")
            import urllib3
            assert seen == ["urllib3.connectionpool"] * 2, seen
            assert type(urllib3.connectionpool.__loader__) is Other
            assert type(urllib3.connectionpool.__spec__.loader) is Other
            check(old, urllib3.connectionpool)
        """
        % lines
        for where, lines in {
            "before": "import stalepool; sys.meta_path.insert(0, Finder())",
            "after": "sys.meta_path.insert(0, Finder()); import stalepool",
        }.items()
    },
}


@pytest.mark.parametrize("order", lanes.first(12, ORDERS))
def test_every_copy_is_wrapped_once(order: str, run_order: Callable[..., Any]) -> None:
    run_order(ORDERS[order])


@pytest.mark.skipif(find_spec("gevent") is None, reason="no gevent")
def test_every_copy_is_wrapped_once_under_gevent(run_order: Callable[..., Any]) -> None:
    # zope.interface 7.2, which gevent imports, crashes on Python 3.8 if collected half built
    lines = "import gc; gc.disable(); import stalepool; from gevent import monkey"
    run_order(lines + "\nmonkey.patch_all(); import urllib3; check(urllib3.connectionpool)")


# -- whatever goes wrong, urllib3 is imported, and works

OFF = "stalepool is not active in this process: the import hook failed: %s"

FAILURES: Dict[str, str] = {
    "wrapt is not there": """
        sys.modules["wrapt"] = None
    """,
    "a module of ours is broken": """
        at_lookup("stalepool.connection.checkout", lambda: 1 / 0)
    """,
    "the patches cannot be applied": """
        import stalepool.patching.patches as patches
        patches.apply = lambda module: 1 / 0
    """,
}
ALL_THE_SAME = """
    import json
    forget("urllib3")
    import urllib3
    pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
    answer(pool)
    wait_for_fin(pool)
    answer(pool)
    pool.close()
    from stalepool import fallback
    print(json.dumps([[r.getMessage() for r in records], fallback.counts()]))
"""


@pytest.mark.each_value
@pytest.mark.parametrize("lines", ["import stalepool, urllib3", "import urllib3, stalepool"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_hook_leaves_urllib3_as_it_is(
    failure: str, lines: str, run_order: Callable[..., Any]
) -> None:
    parts = [FAILURES[failure], "records = warnings_logged()", lines, ALL_THE_SAME]
    messages, fallbacks = run_order("\n".join(map(textwrap.dedent, parts)))
    assert "hook_failed" in messages[0], messages  # at the import
    reason = messages[0].partition("(hook_failed): ")[2]
    # at the first connection, if it is off by then
    assert messages[1:] in ([], [OFF % reason]), messages
    assert fallbacks["hook_failed"] >= 1


# -- eventlet says no more than it says without us

EVENTLET_ORDERS = (
    "{0}; import urllib3, eventlet; eventlet.monkey_patch()",
    "{0}; import eventlet; eventlet.monkey_patch(); import urllib3",
    "{0}; import eventlet; eventlet.import_patched('urllib3'); eventlet.monkey_patch()",
)


@pytest.mark.skipif(find_spec("eventlet") is None, reason="no eventlet")
@pytest.mark.parametrize("order", lanes.first(1, EVENTLET_ORDERS))
def test_eventlet_warns_of_nothing_new(order: str) -> None:
    said = [child("-Wdefault", "-c", order.format(line)) for line in ("pass", "import stalepool")]
    assert [done.returncode for done in said] == [0, 0], said
    assert said[1].stderr.replace("import stalepool", "pass") == said[0].stderr
