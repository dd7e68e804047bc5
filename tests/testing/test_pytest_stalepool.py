"""The fixtures, as the test author of another project uses them."""

import socket

import pytest

import lanes
from stalepool_testing import Unavailable, blackhole
from suite import run, run_with_plugin, write_metadata

pytest_plugins = ["pytester"]

FIXTURES = """
    import sys
    import pytest
    import requests
    from stalepool_testing import Reset, Respond, stale_states, wait_readable

    DIES = [Respond(200), Reset()]

    def two_requests(server, **options):
        with requests.Session() as session:
            session.trust_env = False
            return [session.get(server.url, **options).status_code for _ in range(2)]

    def lose_one(server):
        with pytest.raises(requests.ConnectionError):
            two_requests(server)

    def test_nothing_is_switched_on(fault_server):
        # imported at most by another test, for its shim
        assert "stalepool" not in sys.modules or not sys.modules["stalepool"].is_installed()
        lose_one(fault_server(DIES))

    def test_on(fault_server, stalepool_on):
        assert two_requests(fault_server(DIES)) == [200, 200]
        stalepool_on(replay="off")
        lose_one(fault_server(DIES))

    def test_off(fault_server, stalepool_off):
        lose_one(fault_server(DIES))

    def test_steps_may_be_left(fault_server):
        fault_server([Respond(200)], may_leave_steps=True)

    @pytest.mark.parametrize("state", stale_states())
    def test_states(stale_socket, state):
        assert stale_socket(state).client.fileno() >= 0

    def test_a_black_hole(black_hole):
        black_hole.client.sendall(b"lost")
        with pytest.raises(TimeoutError):
            wait_readable(black_hole.peer, 0.05)

    def test_no_hub(no_hub_switch):
        with pytest.raises(RuntimeError, match="neither .* imported"), no_hub_switch():
            pass

    def test_a_proxy(fault_server, proxy):
        by_way_of = proxy()
        two_requests(fault_server(), proxies={"http": by_way_of.url})
        assert len(by_way_of.forwarded) == 2
"""


@pytest.mark.parametrize("workers", lanes.first(1, [[], ["-n", "2"]]), ids=str)
def test_every_fixture(workers, pytester):
    pytester.makepyfile(FIXTURES)
    outcome = run_with_plugin(pytester, *workers, others=bool(workers))
    try:
        blackhole.require(socket.AF_INET)
        skipped = 0
    except Unavailable:
        skipped = 2
    outcome.assert_outcomes(passed=15 - skipped, skipped=skipped)


FAILING = """
    import pytest
    from contextlib import suppress
    from stalepool_testing import AnswerStep, BlackHole, Blackout, Reset, Respond
    from stalepool_testing import Unavailable, blackhole
    from urllib.request import urlopen

    def test_a_step_left(fault_server):
        urlopen(fault_server([Respond(200), Reset()]).url)

    def test_nobody_comes(fault_server):
        fault_server([Reset()])

    @pytest.fixture
    def server(fault_server):  # of the author's own, over ours
        return fault_server([Respond(204), Respond(200)])

    def test_two_servers(server, fault_server):
        other = fault_server()
        urlopen(server.url)
        assert len(server.journal) == 2

    class Mine(AnswerStep):
        def answer(self, exchange):
            raise KeyError("a mistake in the step")

    def test_own_step(fault_server):
        with suppress(OSError):
            urlopen(fault_server([Mine()]).url)

    def test_server(fault_server): fault_server.url
    def test_socket(stale_socket): stale_socket.client
    def test_proxy(proxy): proxy.url
    def test_position(proxy): proxy("::1")
    def test_setting(stalepool_on): stalepool_on("off")

    def test_hub(no_hub_switch):
        with no_hub_switch: 0

    def test_switch(stalepool_on):
        with stalepool_on(replay="off"): 0

    @pytest.fixture
    def forbidden(monkeypatch):
        def refuse(*arguments):
            raise Unavailable("the kernel refuses a socket filter")
        monkeypatch.setattr(blackhole, "_set", refuse)

    def test_no_black_hole(forbidden, black_hole): pass
    def test_no_step(forbidden, fault_server): fault_server([Respond(200), BlackHole()])
    def test_no_fault(forbidden, fault_server): fault_server().add(Blackout())
"""


def test_what_fails_says_why(pytester):
    pytester.makepyfile(FAILING)
    outcome = run_with_plugin(pytester, "-rs")
    # a failed test, and an error at its end
    outcome.assert_outcomes(failed=10, passed=1, skipped=3, errors=1)
    report = outcome.stdout.str()
    for test, says in {
        "a_step_left": ["no request met Reset(): 1 came", "request 0: GET / meets Respond()"],
        "nobody_comes": ["no request met Reset(): 0 came in all", "no client has connected"],
        "two_servers": ["<Journal: 1 connections, 1 requests>", "meets Respond(status=204)"],
        "own_step": ["Mine() not done: KeyError: 'a mistake in the step'"],
        "server": ["fault_server is a factory: what fault_server(...) returns may have 'url'"],
        "socket": ["stale_socket is a factory: what stale_socket(...) returns may have 'client'"],
        "proxy": ["proxy is a factory: what proxy(...) returns may have 'url'"],
        "position": ["proxy() takes 0 positional arguments but 1 was given"],
        "setting": ["stalepool_on() takes 0 positional arguments but 1 was given"],
        "hub": ["no_hub_switch is a factory: write 'with no_hub_switch(...)'"],
        "switch": ["stalepool_on takes no with: stalepool is on until the test ends"],
    }.items():
        said = report.partition(f" test_{test} ___")[2].partition("\n____")[0]
        assert [words for words in says if words not in said] == []
        if test == "two_servers":
            assert said.count("- fault server http://127.0.0.1:") == 2
            assert "no request met" not in said, "the test has failed already"
    assert report.count("the kernel refuses a socket filter") == 3


def test_pytest_does_not_mind_that_the_shim_was_there_first(pytester):
    """As with STALEPOOL=1: pytest cannot rewrite the assertions of what came before it.

    And a suite that does not use the plugin's fixtures never imports what is behind them.
    """
    write_metadata(pytester.path, "[pytest11]\npytest_stalepool=pytest_stalepool\n")
    pytester.makeini("[pytest]\nfilterwarnings = error")
    test = """
        import sys

        def test_it():
            assert {"stalepool", "pytest_stalepool"} <= set(sys.modules)
            assert "stalepool_testing" not in sys.modules
    """
    pytester.makepyfile(test, sitecustomize="import stalepool")
    run(pytester, others=True).assert_outcomes(passed=1)


def test_without_stalepool_testing_only_the_test_that_needs_it_fails(pytester):
    pytester.makeconftest("import sys; sys.modules['stalepool_testing'] = None")
    pytester.makepyfile("def test_a(fault_server): fault_server()\ndef test_b(): pass")
    run_with_plugin(pytester).assert_outcomes(failed=1, passed=1)
