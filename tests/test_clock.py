"""Under a clock that a test has frozen or moved, what waits does so in real time, as in stock."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from worlds import WITH_TESTS

FROZEN = """
    import contextlib, json, threading
    import freezegun
    import stalepool
    from replay_tools import outcome, reused

    stalepool.install(reconnect_window_s=0.3)

    def refused(order):
        with reused() as (server, pool):
            server.stop_listening()
            pool.pool.queue[-1].close()
            for is_frozen in order:
                frozen = freezegun.freeze_time("2026-01-01")
                with frozen if is_frozen else contextlib.nullcontext():
                    seen.append(outcome(pool, "GET")[0])

    seen = []
    for order in ((1, 1, 0), (0, 1, 1), (1, 0, 1)):
        thread = threading.Thread(target=refused, args=[order])
        thread.start()
        thread.join()
    print(json.dumps(seen))
"""


def test_a_clock_that_stands_or_is_set_keeps_nobody_waiting(run_python: Callable[..., Any]) -> None:
    """Outages that began at a time that is not yet, or at one that does not pass."""
    pytest.importorskip("freezegun")
    seen = run_python(FROZEN, env=WITH_TESTS, flags=["-Wignore"])
    assert seen == ["NewConnectionError"] * 9


MOVED = """
    import json, sys, threading, time
    import freezegun
    if sys.argv[1] == "loaded meanwhile":
        freezegun.freeze_time("2026-01-01").start()
    import stalepool
    from delayed_answers import AnswerLater
    from replay_tools import outcome, reused

    told, sleep = threading.Event(), time.sleep
    with reused(AnswerLater(told), timeout=8.0) as (server, pool):
        with freezegun.freeze_time("2026-01-01") as frozen:
            threading.Timer(0.3, frozen.tick, [60]).start()
            threading.Timer(2.0, told.set).start()  # the first wait is 1.5 s
            print(json.dumps(outcome(pool, "GET")))
"""


@pytest.mark.parametrize("order", ["loaded before", "loaded meanwhile"])
def test_a_clock_that_is_moved_ends_no_wait(run_python: Callable[..., Any], order: str) -> None:
    """Stock: the socket waits in real time, whatever the clock of the test says."""
    pytest.importorskip("freezegun")
    assert run_python(MOVED, order, env=WITH_TESTS, flags=["-Wignore"]) == 200
