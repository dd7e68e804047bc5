"""The way into urllib3: copies inside other packages, parallel imports, and wrappers of others.

Each script runs in a process of its own; what it asserts of a request is counted at the server.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable

import pytest
import urllib3

from service import PRELUDE
from stalepool.patching import copies


@pytest.fixture
def run_client(run_python: Callable[..., Any]) -> Callable[..., Any]:
    def run(script: str, *args: object, **options: Any) -> Any:
        return run_python(PRELUDE + textwrap.dedent(script), *args, **options)

    return run


# -- names

#: a module's name -> its copy of urllib3, and its place in it
NAMES = {
    "urllib3": ("urllib3", ""),
    "urllib3.connectionpool": ("urllib3", "connectionpool"),
    "urllib3.contrib.socks": ("urllib3", "contrib.socks"),
    "urllib3.poolmanager": ("urllib3", "poolmanager"),
    "pip._vendor.urllib3": ("pip._vendor.urllib3", ""),
    "pip._vendor.urllib3.connectionpool": ("pip._vendor.urllib3", "connectionpool"),
    "keystoneauth1.session": ("", "keystoneauth1.session"),
    "keystoneauth1": None,
    "urllib3.util": None,
    "urllib3_of_theirs": None,
    "connectionpool": None,
    "json": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_place_of_a_module(name: str) -> None:
    assert copies.place_of(name) == NAMES[name]


@pytest.mark.parametrize("part", ["connectionpool", "contrib.socks"])
def test_a_part_is_found_without_its_name_in_sys_modules(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("socks")
    module = importlib.import_module("urllib3." + part)
    monkeypatch.delitem(sys.modules, "urllib3." + part)
    assert module in copies.parts_of(urllib3)


# -- copies inside other packages

VENDORED = """
    import warnings
    warnings.simplefilter("ignore")  # pip's own
    if sys.argv[1] == "before":
        import stalepool
    from pip._vendor import requests, urllib3
    if sys.argv[1] == "after":
        import stalepool
    from stalepool_testing import Close, FaultServer, Respond

    with FaultServer([Respond(200), Close(), Respond(200)]) as server:
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(server.url).status_code == 200
            try:
                print(session.get(server.url).status_code)
            except requests.ConnectionError:
                print(0)
    if sys.argv[1] != "never":
        snapshot = stalepool.snapshot()
        assert "pip._vendor.urllib3.connectionpool" in snapshot["patched"], snapshot
        assert snapshot["unpatched"] == [] and snapshot["totals"]["replays"] == {"ok": 1}, snapshot
        assert wrappings(urllib3.connectionpool) == {1}
        assert stalepool.uninstall() == []
        assert wrappings(urllib3.connectionpool) == {0}
        assert stalepool.snapshot()["patched"] == []
"""


@pytest.mark.parametrize(
    ("order", "expected"), [("never", 0), ("before", 200), ("after", 200)], ids=str
)
def test_a_vendored_copy(order: str, expected: int, run_client: Callable[..., Any]) -> None:
    pytest.importorskip("pip._vendor.urllib3")
    off = {"STALEPOOL_ENABLED": "0"} if order == "never" else {}
    assert run_client(VENDORED, order, env=off) == expected


def test_names_that_end_alike(run_client: Callable[..., Any], tmp_path: Path) -> None:
    """A copy under any name, an alias of it, and an instrumentation that is called urllib3."""
    for name in "tool", "tool/instrumentation", "tool/instrumentation/urllib3", "tool/vendored":
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "tool" / "vendored" / "urllib3").symlink_to(Path(urllib3.__file__).parent)
    run_client(
        """
        sys.path.insert(0, sys.argv[1])
        import stalepool
        import tool.instrumentation.urllib3
        assert "wrapt" not in sys.modules and stalepool.snapshot()["patched"] == []
        import tool.vendored.urllib3, urllib3
        sys.modules["tool.packages.urllib3"] = urllib3
        sys.modules["tool.packages.urllib3.connectionpool"] = urllib3.connectionpool
        stalepool.uninstall()
        stalepool.install()
        for copy in tool.vendored.urllib3, urllib3:
            assert wrappings(copy.connectionpool) == {1}
        expected = ["tool.vendored.urllib3.connectionpool", "urllib3.connectionpool"]
        assert stalepool.snapshot()["patched"] == expected, stalepool.snapshot()
        """,
        tmp_path,
    )


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_socks_connection(order: str, run_client: Callable[..., Any]) -> None:
    pytest.importorskip("socks")
    run_client(
        """
        if sys.argv[1] == "before":
            import stalepool
        import urllib3
        from urllib3.contrib import socks
        import stalepool
        names = ["urllib3.connectionpool", "urllib3.contrib.socks"]
        assert stalepool.snapshot()["patched"] == names
        assert hasattr(vars(socks.SOCKSConnection)["_new_conn"], "__wrapped__")
        assert stalepool.uninstall() == []
        assert not hasattr(vars(socks.SOCKSConnection)["_new_conn"], "__wrapped__")
        """,
        order,
    )


def test_a_copy_that_is_thrown_away_can_go(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import gc, typing, weakref
        import stalepool, urllib3
        cls, module = map(
            weakref.ref, (urllib3.connection.HTTPConnection, urllib3.connectionpool)
        )
        assert wrappings(urllib3.connectionpool) == {1}
        forget("urllib3")
        del urllib3
        # typing keeps what annotations name
        [clear() for clear in typing._cleanups]
        getattr(typing, "clear_overloads", bool)()
        gc.collect()
        assert cls() is None and module() is None
        assert stalepool.snapshot()["patched"] == []
        """
    )


# -- imports that run at the same time

HALF_LOADED = ["connectionpool", "connection", "util.retry", "response", "poolmanager"]


@pytest.mark.parametrize("package", ["urllib3", "pip._vendor.urllib3"])
def test_nothing_is_loaded_while_a_urllib3_is_half_loaded(
    package: str, run_client: Callable[..., Any]
) -> None:
    pytest.importorskip(package)
    run_client(
        """
        import importlib, json
        package, seen = sys.argv[1], []
        for name in json.loads(sys.argv[2]):
            at_lookup("%s.%s" % (package, name), lambda: seen.append(ours()))
        def ours():
            return {m for m in sys.modules if m.partition(".")[0] in ("stalepool", "wrapt")}
        import stalepool
        before = ours()
        importlib.import_module(package)
        assert seen and all(found == before for found in seen), seen
        assert {"wrapt", "stalepool.patching.patches"} <= ours()
        # a module that comes later
        for name in "connectionpool", "poolmanager":
            del sys.modules["%s.%s" % (package, name)]
        importlib.import_module(package + ".poolmanager")
        assert wrappings(sys.modules[package + ".connectionpool"]) == {1}
        """,
        package,
        str(HALF_LOADED).replace("'", '"'),
    )


def test_an_import_that_fails_half_way(run_client: Callable[..., Any]) -> None:
    run_client(
        """
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
        """
    )


def test_another_thread_imports_a_part_while_we_load(run_client: Callable[..., Any]) -> None:
    """Two threads that import for the first time meet what they would meet in stock.

    In stock the second one may still come to grief, a few times in a hundred, when it arrives in
    the midst of urllib3's own import. Held here is what is ours: the time that wrapt takes.
    """
    run_client(
        """
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
        """
    )


# -- wrappers of others, put there before or after ours, undone before or after ours

WRAPPED = """
    import importlib
    import wrapt
    module_name, path, order, undo, how = sys.argv[1:]
    import urllib3
    if order == "theirs on top":
        import stalepool
    owner_name, _, name = path.rpartition(".")
    owner = importlib.import_module(module_name)
    owner = getattr(owner, owner_name) if owner_name else owner
    missing, calls = object(), []
    before = vars(owner).get(name, missing)

    def call(wrapped, instance, args, kwargs):
        calls.append(name)
        return wrapped(*args, **kwargs)

    def opaque(original):
        def send(self, data):
            calls.append(name)
            return original(self, data)
        return send

    def subclass(base):
        class Theirs(base):
            def __init__(self, *args, **kwargs):
                calls.append(name)
                super().__init__(*args, **kwargs)
        return Theirs

    if how == "wrapt":
        wrapt.wrap_function_wrapper(module_name, path, call)
    else:
        setattr(owner, name, {"opaque": opaque, "subclass": subclass}[how](getattr(owner, name)))
    theirs = vars(owner)[name]

    import stalepool
    from stalepool_testing import Close, FaultServer, Respond

    def requests(*steps):
        "What each request was answered, how often theirs was called, how many connections."
        del calls[:]
        with FaultServer([*steps, Respond(200)]) as server:
            pool = urllib3.HTTPConnectionPool("127.0.0.1", server.port, retries=False)
            statuses = []
            for _ in steps:
                try:
                    statuses.append(pool.request("GET", "/", timeout=20.0).status)
                except urllib3.exceptions.ProtocolError:
                    statuses.append(0)
            pool.close()
            return statuses, len(calls), len(server.journal.connections)

    def undo_theirs():
        if vars(owner).get(name) is not theirs:
            return
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)

    healthy, fault = [Respond(200)] * 3, [Respond(200), Close()]

    # a kept connection is reused; the fault is met by ours; theirs is called
    # (but a check below ours, which asks no other)
    is_asked = order == "theirs on top" or name != "is_connection_dropped"
    statuses, called, connections = requests(*healthy)
    assert (statuses, connections) == ([200] * 3, 1) and bool(called) == is_asked, called
    statuses, called, connections = requests(*fault)
    assert statuses == [200, 200] and bool(called) == is_asked, (statuses, called)
    assert stalepool.snapshot()["totals"]["replays"] == {"ok": 1}
    assert stalepool.snapshot()["fallbacks"] == {}, stalepool.snapshot()

    on_top_of_ours = order == "theirs on top" and not module_name.startswith("http")
    if undo == "theirs first":
        if on_top_of_ours or module_name.startswith("http"):
            undo_theirs()
            statuses, called, _ = requests(*fault)
            assert statuses == [200, 200] and called == 0, (statuses, called)
        assert stalepool.uninstall() == []
    else:
        left = stalepool.uninstall()
        assert left == (["%s.%s" % ("urllib3.connectionpool", path)] if on_top_of_ours else [])
    # without ours theirs is called as before, where it is still there
    statuses, called, connections = requests(*healthy)
    assert (statuses, connections) == ([200] * 3, 1)
    assert bool(called) == (vars(owner).get(name) is theirs), called
    statuses, _, _ = requests(*fault)
    assert statuses == [200, 0], statuses
    # once more, and once only
    stalepool.install()
    assert requests(*fault)[0] == [200, 200]
    stalepool.uninstall()
    undo_theirs()
    stalepool.install()
    assert stalepool.uninstall() == []
    for cls in urllib3.connection.HTTPConnection, urllib3.connection.HTTPSConnection:
        assert not {"send", "response_class"} & set(vars(cls))
    assert wrappings(urllib3.connectionpool) == {0}
    assert vars(owner).get(name) is not theirs
"""

PLACES = [
    ("urllib3.connection", "HTTPConnection.send", "wrapt"),
    ("urllib3.connection", "HTTPConnection.send", "opaque"),
    ("urllib3.connection", "HTTPConnection._new_conn", "wrapt"),
    ("urllib3.connection", "HTTPConnection.response_class", "wrapt"),
    ("urllib3.connection", "HTTPConnection.response_class", "subclass"),
    ("urllib3.connectionpool", "is_connection_dropped", "wrapt"),
    ("http.client", "HTTPConnection.send", "wrapt"),
    ("http.client", "HTTPConnection.send", "opaque"),
    ("http.client", "HTTPConnection.response_class", "wrapt"),
    ("http.client", "HTTPConnection.response_class", "subclass"),
]


@pytest.mark.each_value
@pytest.mark.parametrize("undo", ["ours first", "theirs first"])
@pytest.mark.parametrize("order", ["theirs below", "theirs on top"])
@pytest.mark.parametrize(("module", "path", "how"), PLACES, ids=str)
def test_a_wrapper_of_others(
    module: str, path: str, how: str, order: str, undo: str, run_client: Callable[..., Any]
) -> None:
    run_client(WRAPPED, module, path, order, undo, how)
