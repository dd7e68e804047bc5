"""install(), uninstall(), is_installed(): on and off again, exactly, and in any order."""

import sys
import threading

import pytest
import urllib3

import stalepool
from in_client import attributes, wrappings
from pools import get, shim
from replay_tools import side_by_side
from stalepool import fallback, runtime

BROKEN = """
    sys.modules["stalepool.connection.checkout"] = None
    import stalepool

    def is_on():
        seen = stalepool.snapshot()
        assert seen["installed"] is stalepool.is_installed() is bool(seen["mode"])
        return seen["installed"]

    assert stalepool.is_installed()  # as far as is known yet
    import urllib3
    assert not is_on()
    assert not hasattr(urllib3.connectionpool.is_connection_dropped, "__wrapped__")
    assert stalepool.snapshot()["fallbacks"]["hook_failed"] > 0
    del sys.modules["stalepool.connection.checkout"]  # and now it is there
    %s
    import urllib3
    assert is_on()
    check(urllib3.connectionpool)
"""

#: each in a process of its own
SCRIPTS = {
    "undo is exact": """
        import urllib3
        pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
        for _ in range(2):  # urllib3 replaces a function of its own at first use
            answer(pool)
            wait_for_fin(pool)
        stock, finders = everything_in("urllib3"), list(sys.meta_path)
        import stalepool
        answer(pool)
        assert deaths() == 1  # of a connection that was pooled before
        pool.close()
        for _ in range(2):
            assert stalepool.is_installed()
            check(urllib3.connectionpool)
            assert differences(stock, everything_in("urllib3"))
            assert stalepool.uninstall() == []
            assert not stalepool.is_installed()
            changed = differences(stock, everything_in("urllib3"))
            assert not changed, changed
            assert [f for f in sys.meta_path if type(f).__module__ != "wrapt.importer"] == finders
            meet_a_dead_connection(urllib3.connectionpool, found=0)
            assert stalepool.uninstall() == []
            stalepool.install()
    """,
    "before urllib3 it is a matter of the hook alone": """
        finders = list(sys.meta_path)
        import stalepool
        assert stalepool.is_installed() and stalepool.snapshot()["mode"] is None
        assert stalepool.uninstall() == [] == stalepool.uninstall()
        assert not stalepool.is_installed() and sys.meta_path == finders
        stalepool.install(mode="audit")
        stalepool.install(mode="active", max_idle_s=7)
        assert stalepool.is_installed() and "stalepool.patching.patches" not in sys.modules
        import urllib3
        check(urllib3.connectionpool)
        from stalepool import runtime
        assert runtime.current.max_idle_s == 7
        stalepool.install(mode="audit")
        forget("urllib3")
        import urllib3
        check(urllib3.connectionpool)
        assert stalepool.snapshot()["mode"] == "audit"  # holds for later copies too
        stalepool.uninstall()
        forget("urllib3")
        import urllib3
        assert wrappings(urllib3.connectionpool) == {0}
    """,
    # what failed for one copy may work later, or for the next
    "broken, and then whole": BROKEN % "stalepool.install()",
    "broken, and whole for the next copy": BROKEN % 'forget("urllib3")',
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_in_a_process_of_its_own(name, run_order):
    run_order(SCRIPTS[name], complains=name.startswith("broken"))


def test_a_wrong_setting_changes_nothing():
    def state():
        return attributes(urllib3.connectionpool), list(sys.meta_path), stalepool.snapshot()

    with shim(max_idle_s=7):
        before, installation = state(), runtime.current
        for name, value in ("mode", "activ"), ("max_idle", 3), ("enabled", "never"):
            with pytest.raises(stalepool.SettingsError, match=repr(value)):
                stalepool.install(**{name: value})
            assert state() == before and runtime.current is installation


def test_install_starts_from_the_environment(monkeypatch):
    with shim(), monkeypatch.context() as patched:
        patched.setenv("STALEPOOL_ENABLED", "0")
        for settings, is_on in ({}, False), ({"enabled": True}, True), ({"enabled": False}, False):
            stalepool.install(**settings)
            assert stalepool.is_installed() == is_on
            assert wrappings(urllib3.connectionpool) == {int(is_on)}
        patched.delenv("STALEPOOL_ENABLED")
        patched.setenv("STALEPOOL_MODE", "audit")
        for settings in {"max_idle_s": 8}, {}:
            stalepool.install(**settings)
            assert runtime.current == stalepool.Settings(mode="audit", **settings)


def test_switching_under_traffic(port):
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            assert get(pool) == 200

    def switch():
        try:
            for _ in range(12):
                stalepool.uninstall()
                stalepool.install(mode="audit")
                stalepool.install()
        finally:
            stop.set()

    fallback.forget()
    with urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=4, retries=5) as pool:
        side_by_side([ask] * 4 + [switch])
    assert fallback.counts() == {}
    assert wrappings(urllib3.connectionpool) == {1}


def test_the_public_names():
    for name in stalepool.__all__:
        assert getattr(stalepool, name) is not None and name in dir(stalepool)
    with pytest.raises(AttributeError, match="nothing"):
        stalepool.nothing  # noqa: B018
