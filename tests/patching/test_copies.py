"""The copies of urllib3 in a process, under whatever name.

Each script runs in a process of its own; what it asserts of a request is counted at the server.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import urllib3

import lanes
from stalepool.patching import copies

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
    if sys.argv[2] == "before":
        import stalepool
    from pip._vendor import requests, urllib3
    if sys.argv[2] == "after":
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
    if sys.argv[2] != "stock":
        snapshot = stalepool.snapshot()
        assert "pip._vendor.urllib3.connectionpool" in snapshot["patched"], snapshot
        assert snapshot["unpatched"] == [] and snapshot["totals"]["replays"] == {"ok": 1}, snapshot
        assert wrappings(urllib3.connectionpool) == {1}
        assert stalepool.uninstall() == []
        assert wrappings(urllib3.connectionpool) == {0}
        assert stalepool.snapshot()["patched"] == []
"""


@pytest.mark.parametrize(
    ("order", "expected"), lanes.first(1, [("before", 200), ("after", 200), ("stock", 0)])
)
def test_a_vendored_copy(order: str, expected: int, run_order: Callable[..., Any]) -> None:
    pytest.importorskip("pip._vendor.urllib3")
    off = {"STALEPOOL_ENABLED": "0"} if order == "stock" else {}
    assert run_order(VENDORED, order, env=off) == expected


def test_names_that_end_alike(run_order: Callable[..., Any], tmp_path: Path) -> None:
    """A copy under any name, an alias of it, and an instrumentation that is called urllib3."""
    for name in "tool", "tool/instrumentation", "tool/instrumentation/urllib3", "tool/vendored":
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "tool" / "vendored" / "urllib3").symlink_to(Path(urllib3.__file__).parent)
    run_order(
        """
        sys.path.insert(0, sys.argv[2])
        import stalepool
        import tool.instrumentation.urllib3
        assert "wrapt" not in sys.modules and stalepool.snapshot()["patched"] == []
        import tool.vendored.urllib3, urllib3
        sys.modules["tool.packages.urllib3"] = urllib3
        sys.modules["tool.packages.urllib3.connectionpool"] = urllib3.connectionpool
        copies = tool.vendored.urllib3.connectionpool, urllib3.connectionpool
        check(*copies)
        assert stalepool.uninstall() == []
        for copy in copies:
            assert wrappings(copy) == {0}
        stalepool.install()
        check(*copies)
        expected = ["tool.vendored.urllib3.connectionpool", "urllib3.connectionpool"]
        assert stalepool.snapshot()["patched"] == expected, stalepool.snapshot()
        """,
        tmp_path,
    )


def test_a_socks_connection(run_order: Callable[..., Any]) -> None:
    """It is there when stalepool comes, and in the next copy it is loaded later."""
    pytest.importorskip("socks")
    run_order(
        """
        from urllib3.contrib import socks
        import stalepool
        for _ in range(2):
            names = ["urllib3.connectionpool", "urllib3.contrib.socks"]
            assert stalepool.snapshot()["patched"] == names
            assert hasattr(vars(socks.SOCKSConnection)["_new_conn"], "__wrapped__")
            assert stalepool.uninstall() == []
            assert not hasattr(vars(socks.SOCKSConnection)["_new_conn"], "__wrapped__")
            forget("urllib3")
            stalepool.install()
            import urllib3
            from urllib3.contrib import socks
        """
    )


def test_a_copy_that_is_thrown_away_can_go(run_order: Callable[..., Any]) -> None:
    run_order(
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
