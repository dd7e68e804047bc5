"""install(), uninstall(), is_installed(): on and off again, exactly, and in any order."""

from __future__ import annotations

import textwrap
from typing import Any, Callable

import pytest

from service import PRELUDE

MEET_IT_STOCK = """
def meet_it_stock(connectionpool):
    "The same as meet_a_dead_connection, but the shim must not check."
    pool = connectionpool.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
    before = stalepool.snapshot()["totals"]
    answer(pool)
    wait_for_fin(pool)
    answer(pool)
    assert stalepool.snapshot()["totals"] == before
    pool.close()
"""


@pytest.fixture
def run_client(run_python: Callable[..., Any], port: int) -> Callable[..., Any]:
    def run(script: str, *args: object, **options: Any) -> Any:
        return run_python(PRELUDE + MEET_IT_STOCK + textwrap.dedent(script), port, *args, **options)

    return run


def test_undo_is_exact(run_client: Callable[..., Any]) -> None:
    run_client(
        """
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
            meet_it_stock(urllib3.connectionpool)
            assert stalepool.uninstall() == []
            stalepool.install()
        """
    )


def test_undo_reaches_every_copy(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import stalepool
        copies = []
        for _ in range(2):
            import urllib3
            copies.append(urllib3.connectionpool)
            forget("urllib3")
        check(*copies)
        assert stalepool.uninstall() == []
        for copy in copies:
            assert wrappings(copy) == {0}
            meet_it_stock(copy)
        import urllib3
        assert wrappings(urllib3.connectionpool) == {0}
        """
    )


def test_before_urllib3_it_is_a_matter_of_the_hook_alone(run_client: Callable[..., Any]) -> None:
    run_client(
        """
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
        assert runtime.current.settings.max_idle_s == 7
        stalepool.uninstall()
        forget("urllib3")
        import urllib3
        assert wrappings(urllib3.connectionpool) == {0}
        """
    )


@pytest.mark.parametrize(
    "wrap_on_top",
    [
        """
        take = getattr
        def wrap_on_top(original):
            if isinstance(original, type):
                class Theirs(original):
                    def __init__(self, *args, **kwargs):
                        seen.append(original)
                        super().__init__(*args, **kwargs)
                return Theirs
            @functools.wraps(original)
            def theirs(*args, **kwargs):
                seen.append(original)
                return original(*args, **kwargs)
            return theirs
        """,
        """
        take = lambda owner, name: vars(owner)[name]  # as wrapt itself does
        def wrap_on_top(original):
            def theirs(wrapped, instance, args, kwargs):
                seen.append(original)
                return wrapped(*args, **kwargs)
            return wrapt.FunctionWrapper(original, theirs)
        """,
    ],
    ids=["functools.wraps and a subclass", "wrapt"],
)
def test_under_a_wrapper_of_others_ours_stays_and_passes_through(
    wrap_on_top: str, run_client: Callable[..., Any]
) -> None:
    run_client(
        textwrap.dedent(wrap_on_top)
        + textwrap.dedent(
            """
            import functools, urllib3, stalepool, wrapt
            from stalepool.patching import patches
            records, seen, module = warnings_logged(), [], urllib3.connectionpool

            def owner_of(patch):
                return patch.owner_in(module)

            table = [p for p in patches._patches_of(module) if p.parameters is not None]
            ours = attributes(module)
            taken = [take(owner_of(patch), patch.attribute) for patch in table]
            for patch, original in zip(table, taken):
                setattr(owner_of(patch), patch.attribute, wrap_on_top(original))
            theirs, depth = attributes(module), wrappings(module)

            left = stalepool.uninstall()
            assert left == [patch.name_in(module) for patch in table], left
            assert not stalepool.is_installed()
            (record,) = records
            assert all(name in record.getMessage() for name in left)
            assert all(now is then for now, then in zip(attributes(module), theirs))
            meet_it_stock(module)
            assert {id(original) for original in taken} <= {id(original) for original in seen}

            for _ in range(2):  # switched on again: active in its place, and once
                stalepool.install()
                assert all(now is then for now, then in zip(attributes(module), theirs))
                assert wrappings(module) == depth
                meet_a_dead_connection(module)

            for patch, original in zip(table, ours):  # the others go
                setattr(owner_of(patch), patch.attribute, original)
            check(module)
            assert stalepool.uninstall() == []
            assert wrappings(module) == {0}
            assert len(records) == 1
            """
        )
    )


def test_what_is_wrapped_by_others_first_is_theirs_again(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import functools, urllib3
        original = urllib3.connectionpool.is_connection_dropped
        @functools.wraps(original)
        def theirs(conn):
            return original(conn)
        urllib3.connectionpool.is_connection_dropped = theirs
        import stalepool
        meet_a_dead_connection(urllib3.connectionpool)
        assert stalepool.uninstall() == []
        assert urllib3.connectionpool.is_connection_dropped is theirs
        """
    )


def test_a_stranger_that_answers_to_every_name_is_no_trap(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import urllib3

        class Stranger:
            def __call__(self, conn):
                return False
            def __getattr__(self, name):
                return Stranger()

        stranger = urllib3.connectionpool.is_connection_dropped = Stranger()
        import stalepool
        stalepool.install()
        assert stalepool.uninstall() == []
        """
    )


def test_connections_that_were_pooled_before(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import urllib3
        pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
        answer(pool)
        wait_for_fin(pool)
        import stalepool
        answer(pool)
        assert deaths() == 1  # covered from the first checkout on
        wait_for_fin(pool)
        stalepool.uninstall()
        answer(pool)
        assert deaths() == 1  # stock again
        wait_for_fin(pool)
        stalepool.install()
        answer(pool)
        assert deaths() == 2
        pool.close()
        """
    )


def test_changing_the_mode(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import urllib3

        def is_connection_dropped(conn):
            return False  # a urllib3 that trusts every connection

        urllib3.connectionpool.is_connection_dropped = is_connection_dropped
        import stalepool

        def outcome():
            pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
            answer(pool)
            wait_for_fin(pool)
            try:
                answer(pool)
                return "answered"
            except urllib3.exceptions.ProtocolError:
                return "failed"
            finally:
                pool.close()

        for mode, expected in ("audit", "failed"), ("active", "answered"), ("audit", "failed"):
            before = deaths()
            stalepool.install(mode=mode)
            assert stalepool.snapshot()["mode"] == mode
            assert outcome() == expected
            assert deaths() == before + 1
        forget("urllib3")
        import urllib3
        check(urllib3.connectionpool)
        assert stalepool.snapshot()["mode"] == "audit"  # holds for later copies too
        stalepool.install()  # the settings of the environment again
        assert stalepool.snapshot()["mode"] == "active"
        """
    )


def test_a_wrong_setting_changes_nothing(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import stalepool, urllib3
        stalepool.install(max_idle_s=7)
        before = attributes(urllib3.connectionpool), list(sys.meta_path), stalepool.snapshot()
        from stalepool import runtime
        installation = runtime.current
        for wrong in {"mode": "activ"}, {"max_idle": 3}, {"enabled": "never"}:
            try:
                stalepool.install(**wrong)
            except stalepool.SettingsError as error:
                assert repr(list(wrong.values())[0]) in str(error)
            else:
                raise AssertionError(wrong)
            now = attributes(urllib3.connectionpool), list(sys.meta_path), stalepool.snapshot()
            assert now == before and runtime.current is installation
        stalepool.uninstall()
        try:
            stalepool.install(mode="activ")
        except stalepool.SettingsError:
            assert not stalepool.is_installed() and wrappings(urllib3.connectionpool) == {0}
        else:
            raise AssertionError
        """
    )


@pytest.mark.parametrize("first", ["stalepool", "urllib3", "stalepool alone"])
def test_without_wrapt_it_says_that_it_is_off(first: str, run_client: Callable[..., Any]) -> None:
    run_client(
        """
        sys.modules["wrapt"] = None
        first = sys.argv[2]
        __import__(first.split()[0])
        import stalepool
        if "alone" not in first:
            import urllib3

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
        assert stalepool.uninstall() == [] and state() == (False, None)

        del sys.modules["wrapt"]  # and now it is there
        stalepool.install()
        assert state() == (True, "active")
        check(urllib3.connectionpool)
        """,
        first,
    )


@pytest.mark.parametrize("installed_again", [False, True])
def test_what_failed_for_one_copy_may_work_for_the_next(
    installed_again: bool, run_client: Callable[..., Any]
) -> None:
    run_client(
        """
        sys.modules["wrapt"] = None
        import stalepool, urllib3
        assert not stalepool.is_installed()
        del sys.modules["wrapt"]
        if sys.argv[2] == "True":
            stalepool.install()
        forget("urllib3")
        import urllib3
        assert stalepool.is_installed() and stalepool.snapshot()["mode"] == "active"
        check(urllib3.connectionpool)
        """,
        installed_again,
    )


def test_the_kill_switch_and_install(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import stalepool, urllib3
        stalepool.install()
        assert not stalepool.is_installed() and wrappings(urllib3.connectionpool) == {0}
        stalepool.install(enabled=True)
        assert stalepool.is_installed()
        check(urllib3.connectionpool)
        stalepool.install(enabled=False)
        assert not stalepool.is_installed() and wrappings(urllib3.connectionpool) == {0}
        """,
        env={"STALEPOOL_ENABLED": "0"},
    )


def test_install_starts_from_the_environment(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import stalepool, urllib3
        from stalepool import runtime
        assert runtime.current.settings == stalepool.Settings(mode="audit", max_idle_s=9)
        stalepool.install(max_idle_s=8)
        assert runtime.current.settings == stalepool.Settings(mode="audit", max_idle_s=8)
        """,
        env={"STALEPOOL_MODE": "audit", "STALEPOOL_MAX_IDLE_S": "9"},
    )


def test_switching_under_traffic(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import threading, urllib3, stalepool
        stop, failures = threading.Event(), []
        pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), maxsize=4, retries=5)

        def ask():
            try:
                while not stop.is_set():
                    answer(pool)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(30):
            stalepool.uninstall()
            stalepool.install(mode="audit")
            stalepool.install()
        stop.set()
        for thread in threads:
            thread.join()
        pool.close()
        assert not failures, failures
        assert stalepool.snapshot()["fallbacks"] == {}, stalepool.snapshot()
        check(urllib3.connectionpool)
        """
    )


def test_the_public_names(run_client: Callable[..., Any]) -> None:
    run_client(
        """
        import stalepool
        for name in stalepool.__all__:
            assert getattr(stalepool, name) is not None
            assert name in dir(stalepool)
        assert stalepool.Verdict.CLOSED.value == "closed"
        try:
            stalepool.nothing
        except AttributeError as error:
            assert "nothing" in str(error)
        else:
            raise AssertionError
        """
    )
