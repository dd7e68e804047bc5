"""How each figure is measured: who is started, for how long, and what follows from the answers."""

from __future__ import annotations

import statistics
from typing import Any, Dict, NamedTuple, Optional, Sequence

from bench import memory, race, rate, startup
from bench.child import call
from bench.quantity import Quantity, exactly, of_ratios, of_samples, of_share
from bench.rounds import Samples
from bench.server import Server
from bench.world import EVENTLET, THREADS

# the names of quantities
OVER_FLOOR = "ours / floor"
BELOW_STOCK = "stock / ours"
OVER_ALONE = "ours / ours alone"
SWITCHES = "hub switches"
MORE_FLOORS = "(ours - stock) / floor"
SECOND_LOOK = "(on - off) / floor"
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


def alone(quick: bool, tls: bool) -> Measured:
    with Server(tls=tls) as server:
        samples = call("bench.checkout:alone", THREADS, at=server.at, rounds=_many(quick))
    return _three(samples)


def alone_green(quick: bool) -> Measured:
    with Server() as server:
        found = call("bench.checkout:alone_green", EVENTLET, at=server.at, rounds=_many(quick))
    return _with_switches(_three(found["samples"]), found)


def in_green_crowd(quick: bool, size: int, work_s: float) -> Measured:
    # three laps for the three, two and a bit for stock's own check
    lap_s = size * (work_s + 5e-6)
    rounds = 7 if quick else max(25, min(500, int(4 / lap_s / 6)))
    with Server() as server:
        found = call(
            "bench.checkout:in_green_crowd",
            EVENTLET,
            at=server.at,
            rounds=rounds,
            size=size,
            work_s=work_s,
        )
    measured = _with_switches(_three(found["samples"]), found)
    measured.quantities[OVER_ALONE] = of_ratios(found["samples"]["ours"], found["samples"]["alone"])
    return measured


def in_native_crowd(quick: bool, size: int) -> Measured:
    rounds, limit_s = (200, 5) if quick else (5000, 60)
    with Server() as server:
        samples = call(
            "bench.checkout:in_native_crowd",
            THREADS,
            at=server.at,
            rounds=rounds,
            size=size,
            limit_s=limit_s,
        )
    measured = _three(samples)
    return measured._replace(notes={"mean, us": {k: _mean_us(v) for k, v in samples.items()}})


def second_look(quick: bool) -> Measured:
    samples = call("bench.second_look:measure", THREADS, rounds=_many(quick))
    more = [on - off for on, off in zip(samples["on"], samples["off"])]
    return Measured(
        {SECOND_LOOK: of_ratios(more, samples["floor"])},
        floor=_us(samples["floor"]),
        ours=_us(more),
    )


def request_rate(scenario: str, quick: bool) -> Measured:
    samples = _columns(rate.compare(scenario, quick))
    return Measured(
        {
            BELOW_STOCK: of_samples(samples[BELOW_STOCK]),
            MORE_FLOORS: of_samples(samples[MORE_FLOORS]),
        },
        _us(samples["floor"]),
        _us(samples["stock"]),
        _us(samples["ours"]),
    )


def import_time(quick: bool) -> Measured:
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


def memory_per_connection(tls: bool) -> Measured:
    found = memory.compare(tls)
    more = found["ours"] - found["stock"]
    return Measured(
        {MORE_BYTES: exactly(more), "bytes more / floor": exactly(more / found["floor"])},
        found["floor"],
        found["stock"],
        found["ours"],
    )


def failures_in_race(quick: bool) -> Measured:
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
        _us(samples["floor"]),
        _us(samples["stock"]),
        _us(samples["ours"]),
    )


def _with_switches(measured: Measured, found: Dict[str, Any]) -> Measured:
    measured.quantities[SWITCHES] = exactly(found["switches"]["ours"])
    return measured._replace(notes={"hub switches, stock": found["switches"]["stock"]})


def _columns(rows: Sequence[Dict[str, float]]) -> Samples:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _many(quick: bool) -> int:
    return 50 if quick else 2000


def _mean_us(seconds: Sequence[float]) -> float:
    return 1e6 * statistics.fmean(seconds)


def _us(seconds: Sequence[float]) -> float:
    return 1e6 * statistics.median(seconds)
