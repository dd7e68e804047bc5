"""install(), uninstall(), is_installed(): on and off again, exactly, and in any order."""

from __future__ import annotations

import sys
import threading
from typing import Any, Callable, Dict, Iterator

import pytest
import urllib3

import lanes
import stalepool
from in_client import attributes, deaths, wrappings
from pools import await_arrival, get, stock
from replay_tools import side_by_side
from stalepool import fallback, runtime


@pytest.fixture
def installed_again() -> Iterator[None]:
    """Whatever a test has switched, those after it have the defaults."""
    yield
    stalepool.install()


#: each in a process of its own
SCRIPTS: Dict[str, str] = {
    "undo is exact": """
        import urllib3
        pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
        for _ in range(2):  # urllib3 replaces a function of its own at first use
            answer(pool)
            wait_for_fin(pool)
        pool.close()
        stock, finders = everything_in("urllib3"), list(sys.meta_path)
        import stalepool
        for _ in range(3):
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
        assert stalepool.is_installed()
        assert stalepool.snapshot()["mode"] is None
        assert stalepool.uninstall() == [] == stalepool.uninstall()
        assert not stalepool.is_installed() and sys.meta_path == finders
        stalepool.install(mode="audit")
        stalepool.install(mode="active", max_idle_s=7)
        assert stalepool.is_installed() and "wrapt" not in sys.modules
        import urllib3
        check(urllib3.connectionpool)
        from stalepool import runtime
        assert runtime.current.max_idle_s == 7
        stalepool.install(mode="audit")
        forget("urllib3")
        import urllib3
        check(urllib3.connectionpool)
        assert stalepool.snapshot()["mode"] == "audit"  # holds for later copies too
        stalepool.install()  # the settings of the environment again
        assert stalepool.snapshot()["mode"] == "active"
        stalepool.uninstall()
        forget("urllib3")
        import urllib3
        assert wrappings(urllib3.connectionpool) == {0}
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_in_a_process_of_its_own(name: str, run_order: Callable[..., Any]) -> None:
    run_order(SCRIPTS[name])


def test_a_stranger_that_answers_to_every_name_is_no_trap() -> None:
    class Stranger:
        def __call__(self, conn: Any) -> bool:
            return False

        def __getattr__(self, name: str) -> Stranger:
            return Stranger()

    with stock(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(urllib3.connectionpool, "is_connection_dropped", Stranger())
        stalepool.install()
        assert stalepool.uninstall() == []


def test_connections_that_were_pooled_before(port: int) -> None:
    def meet_a_dead_connection() -> int:
        await_arrival(pool)
        before = deaths()
        assert get(pool) == 200
        return deaths() - before

    with stock(), urllib3.HTTPConnectionPool("127.0.0.1", port, retries=False) as pool:
        assert get(pool) == 200
        stalepool.install()
        assert meet_a_dead_connection() == 1  # covered from the first checkout on
        stalepool.uninstall()
        assert meet_a_dead_connection() == 0  # stock again
        stalepool.install()
        assert meet_a_dead_connection() == 1


@pytest.mark.usefixtures("installed_again")
def test_a_wrong_setting_changes_nothing() -> None:
    stalepool.install(max_idle_s=7)
    before, installation = state(), runtime.current
    for name, value in ("mode", "activ"), ("max_idle", 3), ("enabled", "never"):
        with pytest.raises(stalepool.SettingsError, match=repr(value)):
            stalepool.install(**{name: value})
        assert state() == before and runtime.current is installation
    stalepool.uninstall()
    with pytest.raises(stalepool.SettingsError):
        stalepool.install(mode="activ")
    assert not stalepool.is_installed() and wrappings(urllib3.connectionpool) == {0}


def state() -> Any:
    return attributes(urllib3.connectionpool), list(sys.meta_path), stalepool.snapshot()


@pytest.mark.parametrize(
    ("first", "then"),
    lanes.first(
        2, [("stalepool", "install"), ("stalepool", "the next copy"), ("urllib3", "install")]
    ),
)
def test_without_wrapt_it_says_that_it_is_off(
    first: str, then: str, run_order: Callable[..., Any]
) -> None:
    """What failed for one copy may work later, or for the next."""
    run_order(
        """
        sys.modules["wrapt"] = None
        __import__(sys.argv[2])
        import stalepool

        def state():
            seen = stalepool.snapshot()
            assert seen["installed"] is stalepool.is_installed()
            return seen["installed"], seen["mode"]

        assert state() == (False, None)
        import urllib3
        original = urllib3.connectionpool.is_connection_dropped
        assert original is urllib3.util.connection.is_connection_dropped
        assert state() == (False, None)
        assert stalepool.snapshot()["fallbacks"]["hook_failed"] > 0
        if sys.argv[3] == "install":
            assert stalepool.uninstall() == [] and state() == (False, None)
            del sys.modules["wrapt"]  # and now it is there
            stalepool.install()
        else:
            del sys.modules["wrapt"]
            forget("urllib3")
            import urllib3
        assert state() == (True, "active")
        check(urllib3.connectionpool)
        """,
        first,
        then,
    )


@pytest.mark.usefixtures("installed_again")
def test_install_starts_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STALEPOOL_ENABLED", "0")
    for settings, is_on in ({}, False), ({"enabled": True}, True), ({"enabled": False}, False):
        stalepool.install(**settings)
        assert stalepool.is_installed() == is_on
        assert wrappings(urllib3.connectionpool) == {int(is_on)}
    monkeypatch.delenv("STALEPOOL_ENABLED")
    monkeypatch.setenv("STALEPOOL_MODE", "audit")
    monkeypatch.setenv("STALEPOOL_MAX_IDLE_S", "9")
    stalepool.install()
    assert runtime.current == stalepool.Settings(mode="audit", max_idle_s=9)
    stalepool.install(max_idle_s=8)
    assert runtime.current == stalepool.Settings(mode="audit", max_idle_s=8)


@pytest.mark.usefixtures("installed_again")
def test_switching_under_traffic(port: int) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            assert get(pool) == 200

    def switch() -> None:
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


def test_the_public_names() -> None:
    for name in stalepool.__all__:
        assert getattr(stalepool, name) is not None
        assert name in dir(stalepool)
    assert stalepool.Verdict.CLOSED.value == "closed"
    with pytest.raises(AttributeError, match="nothing"):
        stalepool.nothing  # noqa: B018
