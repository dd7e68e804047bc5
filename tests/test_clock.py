"""Timeouts as urllib3 takes them; and waits in real time, whatever a test does to the clock."""

import socket

import pytest
import urllib3

from stalepool import clock

FROZEN = """
    import contextlib, json
    import freezegun
    import stalepool
    from replay_tools import outcome, reused, side_by_side

    stalepool.install(reconnect_window_s=0.3)
    seen = []

    def refused(order):
        with reused() as (server, pool):
            server.stop_listening()
            pool.pool.queue[-1].close()
            for is_frozen in order:
                frozen = freezegun.freeze_time("2026-01-01")
                with frozen if is_frozen else contextlib.nullcontext():
                    seen.append(outcome(pool, "GET")[0])

    for order in ((1, 1, 0), (0, 1, 1), (1, 0, 1)):
        side_by_side([lambda: refused(order)])
    print(json.dumps(seen))
"""
MOVED = """
    import json, sys, threading, time
    import freezegun
    if sys.argv[1] == "loaded meanwhile":
        freezegun.freeze_time("2026-01-01").start()
    import stalepool
    from delayed_answers import AnswerLater
    from replay_tools import outcome, reused

    told = threading.Event()
    with reused(AnswerLater(told), timeout=8.0) as (server, pool):
        with freezegun.freeze_time("2026-01-01") as frozen:
            threading.Timer(0.3, frozen.tick, [60]).start()
            threading.Timer(2.0, told.set).start()  # the first wait is 1.5 s
            print(json.dumps(outcome(pool, "GET")))
"""


@pytest.mark.parametrize(
    ("script", "order", "expected"),
    [
        # outages that began at a time that is not yet, or at one that does not pass
        pytest.param(FROZEN, "", ["NewConnectionError"] * 9, id="it keeps nobody waiting"),
        pytest.param(MOVED, "loaded before", 200, id="it ends no wait"),
        pytest.param(MOVED, "loaded meanwhile", 200, id="it ends no wait, loaded meanwhile"),
    ],
)
def test_a_clock_that_stands_or_is_set(script, order, expected, run_python):
    pytest.importorskip("freezegun")
    assert run_python(script, order, flags=["-Wignore"]) == expected


def test_a_limit_is_a_number_none_or_the_sockets_default():
    limits = [3, 2.5, None, urllib3.util.Timeout.DEFAULT_TIMEOUT]
    socket.setdefaulttimeout(7.0)
    try:
        assert [clock.number_of(limit) for limit in limits] == [3.0, 2.5, None, 7.0]
    finally:
        socket.setdefaulttimeout(None)


def test_the_shortest_is_the_smallest_number():
    default = urllib3.util.Timeout.DEFAULT_TIMEOUT
    assert clock.shorter(None, 3, default, 2.5) == 2.5
    assert clock.shorter(default, None) is default
