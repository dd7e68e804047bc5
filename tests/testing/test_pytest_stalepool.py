"""The fixtures, as the test author of another project uses them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import lanes
from conftest import clean_environ
from suite import assert_fails, assert_passes, run_pytest

FIXTURES = """
    import sys
    import pytest
    import requests
    from stalepool_testing import TLS, Reset, Respond, stale_states, wait_readable

    def two_requests(server, **options):
        with requests.Session() as session:
            session.trust_env = False
            return [session.get(server.url, **options).status_code for _ in range(2)]

    def test_nothing_is_switched_on(fault_server):
        # imported at most by another test, for its shim
        assert "stalepool" not in sys.modules or not sys.modules["stalepool"].is_installed()
        with pytest.raises(requests.ConnectionError):
            two_requests(fault_server([Respond(200), Reset()]))

    def test_on(fault_server, stalepool_on):
        assert two_requests(fault_server([Respond(200), Reset()])) == [200, 200]

    def test_on_with_settings(fault_server, stalepool_on):
        stalepool_on(replay="off")
        with pytest.raises(requests.ConnectionError):
            two_requests(fault_server([Respond(200), Reset()]))

    def test_off(fault_server, stalepool_off):
        with pytest.raises(requests.ConnectionError):
            two_requests(fault_server([Respond(200), Reset()]))

    def test_tls(fault_server):
        tls = TLS()
        server = fault_server([Respond(201), Respond(202)], tls=tls)
        assert two_requests(server, verify=tls.ca_path) == [201, 202]

    @pytest.mark.parametrize("state", stale_states())
    def test_states(stale_socket, state):
        assert stale_socket(state).client.fileno() >= 0

    def test_a_black_hole(black_hole):
        black_hole.client.sendall(b"lost")
        with pytest.raises(TimeoutError):
            wait_readable(black_hole.peer, 0.05)

    def test_a_proxy(fault_server, proxy):
        by_way_of = proxy()
        two_requests(fault_server(), proxies={"http": by_way_of.url})
        assert len(by_way_of.forwarded) == 2

    def test_steps_may_be_left(fault_server):
        fault_server([Respond(200)], may_leave_steps=True)
"""


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("-n", "2"), marks=pytest.mark.full),
        pytest.param(("--timeout", "60"), marks=pytest.mark.full),
    ],
    ids=str,
)
def test_every_fixture(options: tuple, tmp_path: Path) -> None:
    assert_passes(run_pytest(tmp_path, FIXTURES, *options), 16)


@pytest.mark.full
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=str)
@pytest.mark.parametrize(
    "package, options",
    [("pytest_randomly", ("-p", "no:random_order")), ("random_order", ("--random-order",))],
)
def test_in_random_order(package: str, options: tuple, workers: tuple, tmp_path: Path) -> None:
    pytest.importorskip(package)
    assert_passes(run_pytest(tmp_path, FIXTURES, *options, *workers), 16)


def test_a_step_nobody_met_fails_the_test(tmp_path: Path) -> None:
    outcome = run_pytest(
        tmp_path,
        """
        from stalepool_testing import Reset, Respond
        from urllib.request import urlopen

        def test_it(fault_server):
            server = fault_server([Respond(200), Reset()])
            urlopen(server.url)

        def test_nobody_comes(fault_server):
            fault_server([Reset()])
        """,
    )
    assert_fails(
        outcome,
        "no request met Reset(): 1 came in all",
        "no request met Reset(): 0 came in all",
        "request 0: GET / meets Respond()",
        "no client has connected",
        "2 failed",
    )


def test_a_failed_test_shows_the_journal_of_each_server(tmp_path: Path) -> None:
    outcome = run_pytest(
        tmp_path,
        """
        import pytest
        from stalepool_testing import CloseAfter, Respond
        from urllib.request import urlopen

        @pytest.fixture
        def server(fault_server):  # of the author's own, over ours
            return fault_server([Respond(204), Respond(200)])

        def test_it(server, fault_server):
            other = fault_server()
            urlopen(server.url)
            assert len(server.journal) == 2
        """,
    )
    assert_fails(outcome, "<Journal: 1 connections, 1 requests>", "meets Respond(status=204)")
    assert outcome.said.count("- fault server http://127.0.0.1:") == 2
    assert "no request met" not in outcome.said, "the test has failed already"


def test_an_error_in_a_step_of_ones_own_is_shown_with_the_journal(tmp_path: Path) -> None:
    outcome = run_pytest(
        tmp_path,
        """
        import urllib3
        from stalepool_testing import AnswerStep

        class Mine(AnswerStep):
            def answer(self, exchange):
                raise KeyError("a mistake in the step")

        def test_it(fault_server):
            server = fault_server([Mine()])
            try:
                urllib3.PoolManager().request("GET", server.url, retries=False)
            except urllib3.exceptions.HTTPError:
                pass
        """,
    )
    assert_fails(outcome, "Mine() not done: KeyError: 'a mistake in the step'", "1 error")


def test_a_factory_that_nobody_called_says_so(tmp_path: Path) -> None:
    outcome = run_pytest(
        tmp_path,
        """
        def test_server(fault_server): fault_server.url
        def test_socket(stale_socket): stale_socket.client
        def test_proxy(proxy): proxy.url
        """,
    )
    assert_fails(
        outcome,
        "fault_server is a factory: what fault_server(...) returns may have 'url'",
        "stale_socket is a factory: what stale_socket(...) returns may have 'client'",
        "proxy is a factory: what proxy(...) returns may have 'url'",
    )


def test_what_the_machine_cannot_do_skips(tmp_path: Path) -> None:
    outcome = run_pytest(
        tmp_path,
        """
        import pytest
        import stalepool_testing
        from stalepool_testing import BlackHole, Blackout, Respond, Unavailable, blackhole

        @pytest.fixture(autouse=True)
        def forbidden(monkeypatch):
            def refuse(*arguments):
                raise Unavailable("the kernel refuses a socket filter")
            monkeypatch.setattr(blackhole, "_set", refuse)

        def test_socket(black_hole): pass
        def test_server(fault_server): fault_server([Respond(200), BlackHole()])
        def test_fault(fault_server): fault_server().add(Blackout())
        """,
        "-rs",
    )
    assert outcome.status == 0, outcome.said
    assert outcome.said.count("the kernel refuses a socket filter") == 3, outcome.said


@pytest.mark.full
def test_a_suite_that_does_not_use_it_never_imports_it(tmp_path: Path) -> None:
    assert_passes(
        run_pytest(
            tmp_path,
            """
            import sys

            def test_it():
                assert "pytest_stalepool" in sys.modules
                assert not {"stalepool", "stalepool_testing"} & set(sys.modules)
            """,
        ),
        1,
    )


def test_pytest_does_not_mind_that_the_shim_was_there_first(tmp_path: Path) -> None:
    """As with STALEPOOL=1: pytest cannot rewrite the assertions of what came before it."""
    installed = tmp_path / "stalepool-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: stalepool\nVersion: 0\n")
    (installed / "entry_points.txt").write_text("[pytest11]\npytest_stalepool=pytest_stalepool\n")
    (installed / "RECORD").write_text("stalepool/__init__.py,,\npytest_stalepool.py,,\n")
    (tmp_path / "sitecustomize.py").write_text("import stalepool\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    path = os.pathsep.join([str(tmp_path), clean_environ()["PYTHONPATH"]])
    test = """
        import sys

        def test_it():
            assert "stalepool" in sys.modules
    """
    assert_passes(run_pytest(tmp_path, test, plugin=False, PYTHONPATH=path), 1)


@pytest.mark.parametrize("world", lanes.first(1, ["eventlet", "gevent"]))
def test_in_a_green_world(world: str, tmp_path: Path) -> None:
    patch = {
        "eventlet": "import eventlet; eventlet.monkey_patch()",
        "gevent": "from gevent import monkey; monkey.patch_all()",
    }[world]
    (tmp_path / "conftest.py").write_text(patch, encoding="utf-8")
    outcome = run_pytest(
        tmp_path,
        """
        import time
        import pytest
        import urllib3
        from stalepool_testing import Reset, ResetAfter, Respond

        @pytest.mark.parametrize("number", range(2))
        def test_it(fault_server, stalepool_on, no_hub_switch, number):
            server = fault_server([Respond(200), Reset(), Respond(201), ResetAfter(0)])
            with urllib3.PoolManager(retries=False) as client:
                client.request("GET", server.url)
                assert client.request("GET", server.url).status == 201
                server.wait_idle_step()
                assert client.request("POST", server.url).status == 200
            with pytest.raises(AssertionError, match="yielded"), no_hub_switch():
                time.sleep(0)
        """,
        *("-p", "no:socket"),  # pytest-socket gives the native sockets back after each test
    )
    assert_passes(outcome, 2)
