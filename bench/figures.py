"""The figures: what is measured, how, and what it must be. One table."""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple

from bench import measures
from bench.measures import Measured
from bench.quantity import Bound


class Figure(NamedTuple):
    """``measure(quick)``; quick shows that it works, and little more."""

    name: str
    title: str
    unit: str
    measure: Callable[[bool], Measured]
    bounds: Dict[str, Bound]


def _figures() -> List[Figure]:
    return [
        Figure(
            "threads",
            "healthy checkout, threads",
            "us",
            lambda quick: measures.alone(quick, tls=False),
            {measures.OVER_FLOOR: Bound(at_most=2.0), measures.BELOW_STOCK: Bound(at_least=1.0)},
        ),
        Figure(
            "eventlet",
            "healthy checkout, eventlet, idle hub",
            "us",
            measures.alone_green,
            {
                measures.OVER_FLOOR: Bound(at_most=2.0),
                measures.BELOW_STOCK: Bound(at_least=15.0),
                measures.SWITCHES: Bound(at_most=0),
            },
        ),
        *(_green_crowd(size, work_ms) for size in (10, 50, 200) for work_ms in (0, 0.1, 1)),
        *(_native_crowd(size) for size in (10, 50)),
        Figure(
            "tls",
            "healthy checkout, TLS 1.3, threads",
            "us",
            lambda quick: measures.alone(quick, tls=True),
            {measures.OVER_FLOOR: Bound(at_most=2.2)},
        ),
        Figure(
            "second-look",
            "the second look before the first byte",
            "us",
            measures.second_look,
            {measures.SECOND_LOOK: Bound(at_most=1.0)},
        ),
        Figure(
            "rate-threads",
            "request, one thread, CPU",
            "us",
            lambda quick: measures.request_rate("threads", quick),
            {measures.BELOW_STOCK: Bound(at_least=0.99)},
        ),
        Figure(
            "rate-eventlet",
            "request, eventlet, 50 clients, CPU",
            "us",
            lambda quick: measures.request_rate("eventlet", quick),
            {measures.BELOW_STOCK: Bound(at_least=1.03)},
        ),
        Figure(
            "rate-busy",
            "request, eventlet, 5 clients, 20 busy green threads of 1 ms, time",
            "us",
            lambda quick: measures.request_rate("busy", quick),
            {measures.BELOW_STOCK: Bound(at_least=10.0)},
        ),
        Figure(
            "import",
            "interpreter start, CPU; import stalepool",
            "ms",
            measures.import_time,
            {measures.IMPORT_MS: Bound(at_most=2.0), measures.MODULES: Bound(at_most=10)},
        ),
        *(_memory(kind) for kind in ("plain", "TLS")),
        Figure(
            "race",
            "failed requests of 10,000, 400 clients, 100 busy green threads of 1 ms",
            "requests",
            measures.failures_in_race,
            {measures.FAILED: Bound(at_most=0)},
        ),
    ]


def _green_crowd(size: int, work_ms: float) -> Figure:
    return Figure(
        "green-%d-%g" % (size, work_ms),
        "healthy checkout, %d runnable green threads, %g ms each" % (size, work_ms),
        "us",
        lambda quick: measures.in_green_crowd(quick, size, work_ms / 1000),
        {measures.OVER_ALONE: Bound(at_most=1.3), measures.SWITCHES: Bound(at_most=0)},
    )


def _native_crowd(size: int) -> Figure:
    return Figure(
        "native-%d" % size,
        "healthy checkout, %d CPU-bound native threads" % size,
        "us",
        lambda quick: measures.in_native_crowd(quick, size),
        {measures.BELOW_STOCK: Bound(at_least=1.0)},
    )


def _memory(kind: str) -> Figure:
    return Figure(
        "memory-" + kind.lower(),
        "memory per pooled connection, " + kind,
        "bytes",
        lambda quick: measures.memory_per_connection(tls=kind == "TLS"),
        {measures.MORE_BYTES: Bound(at_most=640)},
    )


FIGURES = _figures()
