"""Metrics for OpenTelemetry's API: what :func:`.snapshot` counts, by origin.

:func:`instrument` makes observable counters. The SDK reads them on a thread of its own, so a
request pays nothing. The attributes of an origin have the names of OpenTelemetry's semantic
conventions; the values of the other, ``stalepool.reason``, are closed sets.

The conventions' ``http.client.open_connections`` and ``http.client.connection.duration`` are
missing: docs/operating.rst says why.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Optional
from urllib.parse import urlsplit

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

import stalepool
from stalepool import control, stats
from stalepool.contrib.counters import counters


def instrument(meter_provider: Optional[MeterProvider] = None) -> None:
    """Make the instruments. Call it once in each process, after the fork.

    :param meter_provider: None for the global one, which may be set later.
    """
    meter = get_meter("stalepool", stalepool.__version__, meter_provider)
    for metric in counters(control.snapshot()):
        meter.create_observable_counter(
            "stalepool.%s" % metric.name,
            callbacks=[_observe(metric.name)],
            unit="{event}",
            description=metric.help,
        )


def _observe(name: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:
        metric = next(each for each in counters(control.snapshot()) if each.name == name)
        for values, count in metric.samples.items():
            yield Observation(count, _attributes(dict(zip(metric.labels, values))))

    return observe


def _attributes(labels: Dict[str, str]) -> Dict[str, Any]:
    """Name the labels as the conventions do; every label but the origin is a reason."""
    found: Dict[str, Any] = {}
    for label, value in labels.items():
        found.update(_address(value) if label == "origin" else {"stalepool.reason": value})
    return found


def _address(origin: str) -> Dict[str, Any]:
    """Return an origin's attributes; the shared entry of other origins is one address."""
    if origin == stats.OTHERS:
        return {"server.address": origin}
    parts = urlsplit(origin)
    return {
        "url.scheme": parts.scheme,
        "server.address": parts.hostname or "",
        "server.port": parts.port or 0,
    }
