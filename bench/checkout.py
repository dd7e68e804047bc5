"""The check at checkout of a healthy pooled connection; each function in a process of its own."""

from __future__ import annotations

import select
from typing import Any, Callable, Dict

from bench import client
from bench.crowds import GreenCrowd, NativeCrowd
from bench.rounds import Contest, Contestant, Samples, by_name
from bench.world import kernel_poll

At = Dict[str, Any]

#: after a lap of the crowd, so short that what the crowd did to the caches shows
_CROWD_SLICE_S = 0.0001


def alone(at: At, rounds: int) -> Samples:
    """Nothing else goes on in the process."""
    contestants = the_three(at)
    samples = Contest(contestants).rounds(rounds)
    _assert_all_healthy()
    return samples


def alone_green(at: At, rounds: int) -> Dict[str, Any]:
    """The same under eventlet, and how often one check switches green threads."""
    contestants = the_three(at)
    samples = Contest(contestants).rounds(rounds)
    _assert_all_healthy()
    return {"samples": samples, "switches": _switches(contestants)}


def in_green_crowd(at: At, rounds: int, size: int, work_s: float) -> Dict[str, Any]:
    """Among runnable green threads: alone and in the crowd by turns."""
    crowd = GreenCrowd(size, work_s)
    contestants = {
        name: contestant._replace(prepare=crowd.lap) for name, contestant in the_three(at).items()
    }
    alone = Contest({"alone": contestants["ours"]}, _CROWD_SLICE_S)
    with crowd:
        crowded = Contest(contestants, _CROWD_SLICE_S)

    def round_() -> Dict[str, float]:
        idle = alone.round()
        with crowd:
            return {**idle, **crowded.round()}

    round_()
    samples = by_name(round_() for _ in range(rounds))
    _assert_all_healthy()
    with crowd:
        switches = _switches(contestants)
    return {"samples": samples, "switches": switches}


def in_native_crowd(at: At, rounds: int, size: int, limit_s: float) -> Samples:
    """Among native threads that compute.

    A slice is short, so that most of them keep the interpreter throughout: what is compared is the
    usual check. The others last until each thread has had it for 5 ms.
    """
    contestants = the_three(at)
    with NativeCrowd(size):
        samples = Contest(contestants, times=10).rounds(rounds, limit_s)
    _assert_all_healthy()
    return samples


def the_three(at: At) -> Dict[str, Contestant]:
    """The floor, stock's check and ours, of the same pooled connection to the server at ``at``."""
    import urllib3.connectionpool

    import stalepool

    stalepool.install(max_idle_s="off")  # nobody uses the connection, however long it takes

    connection = client.used_connection(at)
    connectionpool: Any = urllib3.connectionpool
    ours = connectionpool.is_connection_dropped
    kept = kernel_poll()
    kept.register(connection.sock.fileno(), select.POLLIN)
    return {
        "floor": Contestant(kept.poll, 0),
        "stock": Contestant(ours.__wrapped__, connection),
        "ours": Contestant(ours, connection),
    }


def _assert_all_healthy() -> None:
    """Every check went our way and found a healthy connection: nothing was left to urllib3."""
    import stalepool

    seen = stalepool.snapshot()
    assert set(seen["totals"]["verdicts"]) == {"alive"} and not seen["fallbacks"], seen


def _switches(contestants: Dict[str, Contestant]) -> Dict[str, float]:
    """Switches of green threads in one check, stock's and ours."""
    return {name: _switches_in(*contestants[name][:2]) for name in ("stock", "ours")}


def _switches_in(check: Callable[[Any], Any], connection: Any, times: int = 10) -> float:
    import greenlet

    switches = 0

    def count(event: str, args: object) -> None:
        nonlocal switches
        switches += 1

    greenlet.settrace(count)
    try:
        for _ in range(times):
            check(connection)
    finally:
        greenlet.settrace(None)
    return switches / times
