"""The copies of urllib3 in a process, under whatever name."""

import importlib
import sys
from pathlib import Path

import pytest
import urllib3

from stalepool.patching import copies


def test_the_place_of_a_module():
    """Its copy of urllib3, and its place in that."""
    places = {
        "urllib3": ("urllib3", ""),
        "urllib3.poolmanager": ("urllib3", "poolmanager"),
        "pip._vendor.urllib3": ("pip._vendor.urllib3", ""),
        "pip._vendor.urllib3.connectionpool": ("pip._vendor.urllib3", "connectionpool"),
        "keystoneauth1.session": ("", "keystoneauth1.session"),
        **dict.fromkeys(("keystoneauth1", "urllib3.util", "urllib3_of_theirs", "connectionpool")),
    }
    assert {name: copies.place_of(name) for name in places} == places


@pytest.mark.parametrize("part", ["connectionpool", "contrib.socks"])
def test_a_part_is_found_without_its_name_in_sys_modules(part, monkeypatch):
    pytest.importorskip("socks")
    module = importlib.import_module("urllib3." + part)
    monkeypatch.delitem(sys.modules, "urllib3." + part)
    assert module in copies.parts_of(urllib3)


def test_copies_under_other_names(run_order, tmp_path):
    """pip's, one under any name, an alias, and an instrumentation that is called urllib3."""
    pytest.importorskip("pip._vendor.urllib3")
    for name in "tool", "tool/instrumentation", "tool/instrumentation/urllib3", "tool/vendored":
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "tool" / "vendored" / "urllib3").symlink_to(Path(urllib3.__file__).parent)
    run_order(
        """
        import warnings
        warnings.simplefilter("ignore")  # pip's own
        sys.path.insert(0, sys.argv[2])
        from pip._vendor import urllib3 as pips
        import stalepool
        import tool.instrumentation.urllib3
        assert stalepool.snapshot()["patched"] == ["pip._vendor.urllib3.connectionpool"]
        from stalepool_testing import Close, FaultServer, Respond
        with FaultServer([Respond(200), Close()]) as server:  # the second is sent once more
            with pips.HTTPConnectionPool(server.host, server.port, retries=False) as pool:
                answer(pool), answer(pool)
        import tool.vendored.urllib3, urllib3
        sys.modules["tool.packages.urllib3"] = urllib3
        sys.modules["tool.packages.urllib3.connectionpool"] = urllib3.connectionpool
        copies = [copy.connectionpool for copy in (pips, tool.vendored.urllib3, urllib3)]
        for _ in range(2):
            check(*copies)
            seen = stalepool.snapshot()
            assert seen["patched"] == [copy.__name__ for copy in copies] and not seen["unpatched"]
            assert stalepool.uninstall() == stalepool.snapshot()["patched"] == []
            assert [wrappings(copy) for copy in copies] == [{0}] * 3
            stalepool.install()
        """,
        tmp_path,
    )


def test_a_socks_connection(run_order):
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


def test_a_copy_that_is_thrown_away_can_go(run_order):
    run_order(
        """
        import gc, typing, weakref
        import stalepool, urllib3
        refs = [weakref.ref(urllib3.connection.HTTPConnection), weakref.ref(urllib3.connectionpool)]
        assert wrappings(urllib3.connectionpool) == {1}
        forget("urllib3")
        del urllib3
        # typing keeps what annotations name
        [clear() for clear in typing._cleanups]
        getattr(typing, "clear_overloads", bool)()
        gc.collect()
        assert [ref() for ref in refs] == [None, None]
        assert stalepool.snapshot()["patched"] == []
        """
    )
