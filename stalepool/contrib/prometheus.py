"""Metrics for prometheus_client: what :func:`.snapshot` counts, by origin.

For one process: ``REGISTRY.register(Collector())``. If several share ``PROMETHEUS_MULTIPROC_DIR``,
as under gunicorn or uWSGI, one of them answers a scrape, from files that all of them write. Then
wrap the WSGI application with :func:`middleware`, which writes at most every few seconds, or call
:func:`write` now and then. No thread is started. A forked process counts from zero, in a file of
its own; the counts of a process that has ended stay in the sum.
"""

from __future__ import annotations

import atexit
import os
import threading
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Tuple

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from stalepool import control, fallback, runtime
from stalepool.clock import monotonic
from stalepool.contrib.counters import counters

WRITE_EVERY_S = 5.0

_PREFIX = "stalepool_"
_MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"


class Collector:
    """Collector of this process's counters; of none if several processes share a directory."""

    def describe(self) -> List[Any]:
        """Return nothing, so that registering it collects nothing."""
        return []

    def collect(self) -> Iterator[Any]:
        """Generate one family for each counter, and one that says whether the shim is active."""
        if _MULTIPROC in os.environ:  # a scrape gets them from the files
            return
        yield from families([((), control.snapshot())])


def families(
    snapshots: Iterable[Tuple[Tuple[str, ...], Dict[str, Any]]], names: Tuple[str, ...] = ()
) -> List[Any]:
    """Return the metric families of one or more processes.

    :param snapshots: each with the values of the labels that distinguish it.
    :param names: the names of those labels.
    """
    active = GaugeMetricFamily(_PREFIX + "active", "1 if urllib3 is patched", labels=names)
    found: Dict[str, Any] = {}
    for values, seen in snapshots:
        active.add_metric(values, float(seen["installed"]))
        for metric in counters(seen):
            family = found.setdefault(
                metric.name,
                CounterMetricFamily(
                    _PREFIX + metric.name, metric.help, labels=(*names, *metric.labels)
                ),
            )
            for its_own, count in metric.samples.items():
                family.add_metric((*values, *its_own), count)
    return [*found.values(), active]


def text(given: List[Any]) -> str:
    """Return metric families in the text format."""
    registry: Any = SimpleNamespace(collect=lambda: given)
    return prometheus_client.generate_latest(registry).decode()


class _Files:
    """The counters of one process in the files of prometheus_client."""

    def __init__(self) -> None:
        registry = prometheus_client.CollectorRegistry()
        self.written: Dict[Tuple[str, ...], int] = {}
        self.active = prometheus_client.Gauge(
            _PREFIX + "active",
            "processes in which urllib3 is patched",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.counters = {
            metric.name: prometheus_client.Counter(
                _PREFIX + metric.name, metric.help, metric.labels, registry=registry
            )
            for metric in counters(control.snapshot())
        }

    def write(self) -> None:
        for metric in counters(control.snapshot()):
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
    """Write what this process has counted since the last write. Raises nothing.

    Does nothing without ``PROMETHEUS_MULTIPROC_DIR``, or while another thread writes.
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
    """Wrap a WSGI application, so that its processes write every ``WRITE_EVERY_S`` seconds."""

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


runtime.register_at_fork(after_in_child=_after_fork_in_child)
