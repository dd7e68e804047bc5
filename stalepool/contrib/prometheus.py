"""Metrics for prometheus_client: what :func:`stalepool.snapshot` counts, by origin.

One process: ``REGISTRY.register(Collector())``. Several that share ``PROMETHEUS_MULTIPROC_DIR``, as
under gunicorn or uWSGI: a scrape is answered by one of them, from files that all have written. So
wrap the WSGI application with :func:`middleware`, which writes at most every few seconds, or call
:func:`write` where the service passes by. No thread is started. A fork counts from zero, in a file
of its own; what an ended process has written stays in the sum.

Labels are bounded: ``origin`` by :data:`stalepool.stats.MAX_ORIGINS`, the others are closed sets.
"""

from __future__ import annotations

import atexit
import os
import threading
from time import monotonic
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from stalepool import control, fallback, stats

WRITE_EVERY_S = 5.0

#: group of :data:`stalepool.stats.GROUPS` -> the label that tells what is counted in it
_LABELS = {"verdicts": "verdict", "replays": "outcome", "reconnects": "outcome"}
_MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"


class Metric(NamedTuple):
    """One counter; its name without ``_total``."""

    name: str
    help: str
    labels: Tuple[str, ...]
    samples: Dict[Any, int]  # by the labels' values, a tuple


def counters() -> Iterator[Metric]:
    """Give all counters as they are now."""
    seen = control.snapshot()
    origins: Dict[str, Dict[str, Any]] = seen["origins"]
    for group, meaning in stats.GROUPS.items():
        labels = ("origin", _LABELS.get(group, "reason"))
        samples = {
            (origin, name): count
            for origin, counted in origins.items()
            for name, count in counted[group].items()
        }
        yield Metric("stalepool_" + group, meaning, labels, samples)
    for name, meaning in (
        ("discards", "connections given up at checkout"),
        ("keepalive_armed", "sockets whose keepalive options were changed"),
    ):
        by_origin = {(origin,): counted[name] for origin, counted in origins.items()}
        yield Metric("stalepool_" + name, meaning, ("origin",), by_origin)
    fallbacks = {(reason,): count for reason, count in seen["fallbacks"].items()}
    yield Metric("stalepool_fallbacks", "falls back to urllib3", ("reason",), fallbacks)


class Collector:
    """Collector of this process's counters; of none where several processes share a directory."""

    def describe(self) -> List[Any]:
        """Name nothing, so that nothing is collected while this is registered."""
        return []

    def collect(self) -> Iterator[Any]:
        """Give one family for each counter, and whether the shim is active."""
        if _MULTIPROC in os.environ:  # a scrape has it from the files already
            return
        for metric in counters():
            family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            for values, count in metric.samples.items():
                family.add_metric(values, count)
            yield family
        yield GaugeMetricFamily(
            "stalepool_active", "1 if urllib3 is patched", float(control.is_installed())
        )


class _Files:
    """The counters of one process in the files of prometheus_client."""

    def __init__(self) -> None:
        registry = prometheus_client.CollectorRegistry()
        self.written: Dict[Tuple[str, ...], int] = {}
        self.active = prometheus_client.Gauge(
            "stalepool_active",
            "processes in which urllib3 is patched",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.counters = {
            metric.name: prometheus_client.Counter(
                metric.name, metric.help, metric.labels, registry=registry
            )
            for metric in counters()
        }

    def write(self) -> None:
        for metric in counters():
            for values, count in metric.samples.items():
                key = (metric.name, *values)
                more = count - self.written.get(key, 0)
                if more > 0:
                    self.counters[metric.name].labels(*values).inc(more)
                    self.written[key] = count
        self.active.set(float(control.is_installed()))


_files: Any = None
_is_writing = threading.Lock()
_due_at = 0.0


@fallback.guarded("metrics_failed")
def write() -> None:
    """Write what this process has counted since it wrote last. Raises nothing.

    Does nothing without ``PROMETHEUS_MULTIPROC_DIR``, nor while another thread does it.
    """
    global _files
    if _MULTIPROC not in os.environ or not _is_writing.acquire(blocking=False):
        return
    try:
        if _files is None:
            _files = _Files()
            atexit.register(write)
        _files.write()
    finally:
        _is_writing.release()


def middleware(application: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a WSGI application, so that its processes write every :data:`WRITE_EVERY_S` seconds."""

    def call(environ: Any, start_response: Any) -> Any:
        global _due_at
        if monotonic() >= _due_at:
            _due_at = monotonic() + WRITE_EVERY_S
            write()
        return application(environ, start_response)

    return call


def _after_fork_in_child() -> None:
    global _files, _is_writing, _due_at
    _files, _is_writing, _due_at = None, threading.Lock(), 0.0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
