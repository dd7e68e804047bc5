"""The figures: what is measured, how, and what it must be. One table."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, NamedTuple

from bench import EVENTLET, once
from bench.turns import Plan, check, compare, presend

Measured = Dict[str, Any]

FLOORS, MORE_FLOORS = "ours / floor", "(ours - stock) / floor"
STOCKS, SWITCHES = "stock / ours", "hub switches"


class Figure(NamedTuple):
    """One row. Of its quantities, each with its bound or "", the first one says most.

    ``measure(quick)`` returns samples by name: ``floor``, ``stock`` and ``ours``, and others.
    """

    name: str
    title: str
    quantities: Dict[str, str]
    measure: Callable[[bool], Measured]
    unit: str = "us"


def _turns(name: str, title: str, plan: Plan, quantities: Dict[str, str]) -> Figure:
    return Figure(name, title, quantities, lambda quick: compare(plan, quick))


def _requests(name: str, title: str, plan: Plan, bound: str = "at least 0.98") -> Figure:
    return _turns(name, title, plan, {STOCKS: bound, MORE_FLOORS: ""})


def _green(size: int, work_ms: float) -> Figure:
    lap_s = size * (work_ms / 1000 + 5e-6)
    slices = max(1, min(20, int(0.03 / lap_s)))
    plan = _ON_HUB._replace(crowd=size, work_s=work_ms / 1000, slices=slices, pairs=6, turns=4)
    quantities = {"ours / ours alone": "at most 1.3", SWITCHES: "at most 0", FLOORS: "", STOCKS: ""}
    title = "check, %d runnable green threads, %g ms each" % (size, work_ms)
    return _turns("green-%d-%g" % (size, work_ms), title, plan, quantities)


def _memory(kind: str) -> Figure:
    quantities = {"bytes more": "at most 640", "bytes more / floor": ""}
    name, title = "memory-" + kind.lower(), "memory per pooled connection, " + kind
    return Figure(name, title, quantities, lambda quick: once.memory(kind == "TLS"), "bytes")


_CHECK = Plan(check, times=0, slices=25, clock=time.perf_counter, pairs=20, turns=20)
_ON_HUB = _CHECK._replace(world=EVENTLET)
_PRESEND = _CHECK._replace(work=presend, other={"presend_check": False})
_GET, _POST = Plan(), Plan(method="POST", body_size=64)
_GREEN_GET = Plan(world=EVENTLET, clients=50, times=4, pairs=15)
_GREEN_POST = _GREEN_GET._replace(method="POST", body_size=64)
_BUSY = _GET._replace(
    **{"world": EVENTLET, "clients": 5, "crowd": 20, "times": 40},
    **{"clock": time.perf_counter, "pairs": 10, "turns": 2},
)
_IDLE = _POST._replace(idle_s=2.0, pairs=20, turns=4)
_SILENCE = _GET._replace(other={"silence_s": "off"})
_START = {"import, ms": "at most 2", "modules": "at most 10", "ours / bare interpreter": ""}
_RACE = "failed of 10,000, 400 clients, 100 busy green threads"

FIGURES: List[Figure] = [
    _turns(
        *("check", "check at checkout, threads", _CHECK),
        {FLOORS: "at most 1.6", STOCKS: "at least 1"},
    ),
    _turns(
        *("check-tls", "check at checkout, TLS 1.3", _CHECK._replace(tls=True)),
        {FLOORS: "at most 2.2", STOCKS: ""},
    ),
    _turns(
        *("check-eventlet", "check at checkout, eventlet, idle hub", _ON_HUB),
        {FLOORS: "at most 1.6", STOCKS: "at least 15", SWITCHES: "at most 0"},
    ),
    _turns("presend", "pre-send check, off (stock) and on", _PRESEND, {MORE_FLOORS: "at most 1.5"}),
    *(_green(size, work_ms) for size in (10, 50, 200) for work_ms in (0, 0.1, 1)),
    _requests("get", "GET, one thread, CPU", _GET),
    _requests("post", "POST, one thread, CPU", _POST),
    _requests("post-idle", "POST after 2 s idle, one thread, CPU", _IDLE),
    _requests("put", "PUT of 1 KiB, one thread, CPU", Plan(method="PUT", body_size=1024)),
    _requests("get-tls", "GET, TLS 1.3, one thread, CPU", _GET._replace(tls=True)),
    _requests("post-tls", "POST, TLS 1.3, one thread, CPU", _POST._replace(tls=True)),
    _requests("get-eventlet", "GET, eventlet, 50 clients, CPU", _GREEN_GET, "at least 1.05"),
    _requests("post-eventlet", "POST, eventlet, 50 clients, CPU", _GREEN_POST, "at least 1.05"),
    _requests("busy", "GET, 5 clients, 20 busy green threads, time", _BUSY, "at least 10"),
    _requests("silence", "GET, the wait on silence off (stock) and on", _SILENCE),
    Figure("import", "interpreter start, CPU", _START, once.starts, "ms"),
    *(_memory(kind) for kind in ("plain", "TLS")),
    Figure("race", _RACE, {"ours": "at most 0", "stock": ""}, once.races, "requests"),
]
