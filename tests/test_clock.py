"""Timeouts as urllib3 takes them; and waits in real time, whatever a test does to the clock."""

import contextlib
import socket
import threading

import pytest
import urllib3

import stalepool
from replay_tools import outcome, reused
from stalepool import clock


def asked_in_outages():
    """In threads of their own, with clocks that stand, run, and stand again."""
    import freezegun

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
        thread = threading.Thread(target=refused, args=[order])
        thread.start()
        thread.join()
    return seen


MOVED = """
    import json, sys, threading, time
    import freezegun
    if sys.argv[1] == "loaded meanwhile":
        freezegun.freeze_time("2026-01-01").start()
    import stalepool
    from delayed_answers import AnswerLater
    from replay_tools import outcome, reused
    from stalepool.clock import monotonic

    told = threading.Event()
    with reused(AnswerLater(told), timeout=8.0) as (server, pool):
        with freezegun.freeze_time("2026-01-01") as frozen:
            began = monotonic()
            threading.Timer(0.3, frozen.tick, [60]).start()
            threading.Timer(2.0, told.set).start()  # the first wait is 1.5 s
            print(json.dumps([outcome(pool, "GET"), 1 < monotonic() - began < 30]))
"""


@pytest.mark.parametrize("order", ["loaded before", "loaded meanwhile"])
def test_a_clock_that_stands_or_is_set_ends_no_wait(order, run_python):
    pytest.importorskip("freezegun")
    assert run_python(MOVED, order, flags=["-Wignore"]) == [200, True]


def test_a_clock_that_stands_keeps_nobody_waiting_in_an_outage(call_python):
    """Nor one that began at a time that is not yet."""
    pytest.importorskip("freezegun")
    assert call_python(asked_in_outages, flags=["-Wignore"]) == ["NewConnectionError"] * 9


def test_a_limit_is_a_number_none_or_the_sockets_default(request):
    limits = [3, 2.5, None, urllib3.util.Timeout.DEFAULT_TIMEOUT]
    request.addfinalizer(lambda: socket.setdefaulttimeout(None))
    socket.setdefaulttimeout(7.0)
    assert [clock.number_of(limit) for limit in limits] == [3.0, 2.5, None, 7.0]


def test_the_shortest_is_the_smallest_number():
    default = urllib3.util.Timeout.DEFAULT_TIMEOUT
    assert clock.shorter(None, 3, default, 2.5) == 2.5
    assert clock.shorter(default, None) is None
