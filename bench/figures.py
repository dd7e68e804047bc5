"""The figures: what is measured, how, and what it must be. One table."""

from __future__ import annotations

import statistics
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from bench import EVENTLET, THREADS, memory, race, rate, startup
from bench.child import call
from bench.quantity import Bound, Quantity, exactly, of_ratios, of_samples, of_share
from bench.rounds import Samples
from bench.server import Server

# the names of quantities
OVER_FLOOR, MORE_FLOORS = "ours / floor", "(ours - stock) / floor"
BELOW_STOCK = "stock / ours"
OVER_ALONE = "ours / ours alone"
SWITCHES = "hub switches"
IMPORT_MS, MODULES = "import, ms", "modules"
MORE_BYTES = "bytes more"
FAILED = "ours"


class Measured(NamedTuple):
    """What came out: the medians of the three, in the figure's unit, and what follows from them."""

    quantities: Dict[str, Quantity]
    floor: Optional[float] = None
    stock: Optional[float] = None
    ours: Optional[float] = None
    notes: Optional[Dict[str, Any]] = None


class Figure(NamedTuple):
    """``measure(quick)``; quick shows that it works, and little more."""

    name: str
    title: str
    unit: str
    measure: Callable[[bool], Measured]
    bounds: Dict[str, Bound]


# -- how they are measured -------------------------------------------------------------------------


def _check(function: str, world: str = THREADS, tls: bool = False, **more: Any) -> Measured:
    """A function of :mod:`bench.checks`, in a process of its own."""
    with Server(tls=tls) as server:
        found = call("bench.checks:" + function, world, at=server.at, **more)
    samples: Samples = found.get("samples", found)
    measured = _three(samples)
    if "alone" in samples:
        measured.quantities[OVER_ALONE] = of_ratios(samples["ours"], samples["alone"])
    if "switches" in found:
        measured.quantities[SWITCHES] = exactly(found["switches"]["ours"])
        measured = measured._replace(notes={"hub switches, stock": found["switches"]["stock"]})
    return measured


def _in_green_crowd(quick: bool, size: int, work_s: float) -> Measured:
    # three laps for the three, two and a bit for stock's own check
    lap_s = size * (work_s + 5e-6)
    rounds = 7 if quick else max(25, min(500, int(4 / lap_s / 6)))
    return _check("in_green_crowd", EVENTLET, rounds=rounds, size=size, work_s=work_s)


def _in_native_crowd(quick: bool, size: int) -> Measured:
    rounds, limit_s = (200, 5) if quick else (5000, 60)
    return _check("in_native_crowd", rounds=rounds, size=size, limit_s=limit_s)


def _presend(quick: bool) -> Measured:
    with Server() as server:
        samples = call("bench.checks:presend", at=server.at, rounds=_many(quick))
    more = [on - off for on, off in zip(samples["on"], samples["off"])]
    cost = of_ratios(more, samples["floor"])
    return Measured({OVER_FLOOR: cost}, _us(samples["floor"]), ours=_us(more))


def _requests(quick: bool, name: str) -> Measured:
    rows = rate.compare(name, quick)
    samples = {column: [row[column] for row in rows] for column in rows[0]}
    quantities = {column: of_samples(samples[column]) for column in (BELOW_STOCK, MORE_FLOORS)}
    return Measured(quantities, *(_us(samples[who]) for who in ("floor", "stock", "ours")))


def _start(quick: bool) -> Measured:
    pairs = startup.measure(10 if quick else 100)
    bare, ours = [pair.bare_cpu_s for pair in pairs], [pair.ours_cpu_s for pair in pairs]
    imports = [1000 * pair.import_s for pair in pairs]
    return Measured(
        {
            IMPORT_MS: of_samples(imports),
            MODULES: of_samples([pair.modules for pair in pairs]),
            "ours / bare interpreter": of_ratios(ours, bare),
        },
        floor=1000 * statistics.median(bare),
        ours=1000 * statistics.median(ours),
        notes={"shortest import, ms": min(imports)},
    )


def _memory_per_connection(tls: bool) -> Measured:
    found = memory.compare(tls)
    more = found["ours"] - found["stock"]
    return Measured(
        {MORE_BYTES: exactly(more), "bytes more / floor": exactly(more / found["floor"])}, **found
    )


def _race(quick: bool) -> Measured:
    requests = 3 if quick else 25
    halves = {name: race.run(name == "ours", requests) for name in ("stock", "ours")}
    shares = {}
    for name, half in halves.items():
        failed = sum(half["failures"].values())
        shares[name] = of_share(failed, half["served"] + failed, per=10000)
    return Measured(
        {FAILED: shares["ours"], "stock": shares["stock"]},
        stock=shares["stock"].median,
        ours=shares["ours"].median,
        notes=halves,
    )


def _three(samples: Samples) -> Measured:
    return Measured(
        {
            OVER_FLOOR: of_ratios(samples["ours"], samples["floor"]),
            BELOW_STOCK: of_ratios(samples["stock"], samples["ours"]),
        },
        *(_us(samples[who]) for who in ("floor", "stock", "ours")),
        {"mean, us": {who: 1e6 * statistics.fmean(samples[who]) for who in samples}},
    )


def _many(quick: bool) -> int:
    return 50 if quick else 2000


def _us(seconds: Sequence[float]) -> float:
    return 1e6 * statistics.median(seconds)


# -- the table -------------------------------------------------------------------------------------

_AT_STOCK, _GREEN = {BELOW_STOCK: Bound(at_least=0.98)}, {BELOW_STOCK: Bound(at_least=1.05)}
_NO_SWITCH = {SWITCHES: Bound(at_most=0)}


def _rate(name: str, title: str, bounds: Dict[str, Bound]) -> Figure:
    return Figure(name, title, "us", lambda quick: _requests(quick, name), bounds)


def _green_crowd(size: int, work_ms: float) -> Figure:
    return Figure(
        "green-%d-%g" % (size, work_ms),
        "check, %d runnable green threads, %g ms each" % (size, work_ms),
        "us",
        lambda quick: _in_green_crowd(quick, size, work_ms / 1000),
        {OVER_ALONE: Bound(at_most=1.3), **_NO_SWITCH},
    )


def _native_crowd(size: int) -> Figure:
    return Figure(
        "native-%d" % size,
        "check, %d native threads that compute" % size,
        "us",
        lambda quick: _in_native_crowd(quick, size),
        {BELOW_STOCK: Bound(at_least=1.0)},
    )


def _memory(kind: str) -> Figure:
    return Figure(
        "memory-" + kind.lower(),
        "memory per pooled connection, " + kind,
        "bytes",
        lambda quick: _memory_per_connection(tls=kind == "TLS"),
        {MORE_BYTES: Bound(at_most=640)},
    )


FIGURES: List[Figure] = [
    Figure(
        "check",
        "check at checkout, threads",
        "us",
        lambda quick: _check("alone", rounds=_many(quick)),
        {OVER_FLOOR: Bound(at_most=1.6), BELOW_STOCK: Bound(at_least=1.0)},
    ),
    Figure(
        "check-tls",
        "check at checkout, TLS 1.3",
        "us",
        lambda quick: _check("alone", tls=True, rounds=_many(quick)),
        {OVER_FLOOR: Bound(at_most=2.2)},
    ),
    Figure(
        "check-eventlet",
        "check at checkout, eventlet, idle hub",
        "us",
        lambda quick: _check("alone_green", EVENTLET, rounds=_many(quick)),
        {OVER_FLOOR: Bound(at_most=1.6), BELOW_STOCK: Bound(at_least=15.0), **_NO_SWITCH},
    ),
    Figure("presend", "pre-send check", "us", _presend, {OVER_FLOOR: Bound(at_most=1.5)}),
    *(_green_crowd(size, work_ms) for size in (10, 50, 200) for work_ms in (0, 0.1, 1)),
    *(_native_crowd(size) for size in (10, 50)),
    _rate("get", "GET, one thread, CPU", _AT_STOCK),
    _rate("post", "POST, one thread, CPU", _AT_STOCK),
    _rate("post-idle", "POST after 2 s idle, one thread, CPU", _AT_STOCK),
    _rate("put", "PUT of 1 KiB, one thread, CPU", _AT_STOCK),
    _rate("get-tls", "GET, TLS 1.3, one thread, CPU", _AT_STOCK),
    _rate("post-tls", "POST, TLS 1.3, one thread, CPU", _AT_STOCK),
    _rate("get-eventlet", "GET, eventlet, 50 clients, CPU", _GREEN),
    _rate("post-eventlet", "POST, eventlet, 50 clients, CPU", _GREEN),
    _rate(
        "busy", "GET, 5 clients, 20 busy green threads, time", {BELOW_STOCK: Bound(at_least=10.0)}
    ),
    _rate("silence", "GET, the wait on silence off (stock) and on", _AT_STOCK),
    Figure(
        "import",
        "interpreter start, CPU",
        "ms",
        _start,
        {IMPORT_MS: Bound(at_most=2.0), MODULES: Bound(at_most=10)},
    ),
    *(_memory(kind) for kind in ("plain", "TLS")),
    Figure(
        "race",
        "failed of 10,000, 400 clients, 100 busy green threads",
        "requests",
        _race,
        {FAILED: Bound(at_most=0)},
    ),
]
