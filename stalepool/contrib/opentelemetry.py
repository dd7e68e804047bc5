"""Metrics for OpenTelemetry's API: what :func:`stalepool.snapshot` counts, by origin.

:func:`instrument` makes observable counters. They are read when the SDK collects, on a thread of
its own, so a request pays nothing. The attributes of an origin have the names of OpenTelemetry's
semantic conventions; the others are closed sets, ``stalepool.reason`` for one. What the conventions
name ``http.client.open_connections`` and ``http.client.connection.duration`` is not counted here.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Optional
from urllib.parse import urlsplit

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

import stalepool
from stalepool import control, stats

#: what is counted for each origin as one number
_NUMBERS = {
    "discards": "connections given up at checkout",
    "keepalive_armed": "sockets whose keepalive options were changed",
}


def instrument(meter_provider: Optional[MeterProvider] = None) -> None:
    """Make the instruments; call it once a process, after a fork in each child.

    :param meter_provider: None for the global one, whenever that is set.
    """
    meter = get_meter("stalepool", stalepool.__version__, meter_provider)
    observe: Dict[str, Callable[[], Iterator[Observation]]]
    observe = {group: _observe_group(group) for group in stats.GROUPS}
    observe.update({name: _observe_number(name) for name in _NUMBERS})
    for name, observations in {**observe, "fallbacks": _observe_fallbacks}.items():
        meter.create_observable_counter(
            "stalepool.%s" % name,
            callbacks=[_callback(observations)],
            unit="{event}",
            description={**stats.GROUPS, **_NUMBERS}.get(name, "falls back to urllib3"),
        )


def _callback(observations: Callable[[], Iterator[Observation]]) -> Any:
    def call(options: CallbackOptions) -> Iterator[Observation]:
        return observations()

    return call


def _observe_group(group: str) -> Callable[[], Iterator[Observation]]:
    def observe() -> Iterator[Observation]:
        for origin, counted in control.snapshot()["origins"].items():
            for name, count in counted[group].items():
                yield Observation(count, {**_attributes(origin), "stalepool.reason": name})

    return observe


def _observe_number(name: str) -> Callable[[], Iterator[Observation]]:
    def observe() -> Iterator[Observation]:
        for origin, counted in control.snapshot()["origins"].items():
            yield Observation(counted[name], _attributes(origin))

    return observe


def _observe_fallbacks() -> Iterator[Observation]:
    for reason, count in control.snapshot()["fallbacks"].items():
        yield Observation(count, {"stalepool.reason": reason})


def _attributes(origin: str) -> Dict[str, Any]:
    """``scheme://host:port`` by the names of the conventions; all other origins are one address."""
    if origin == stats.OTHERS:
        return {"server.address": origin}
    parts = urlsplit(origin)
    return {
        "url.scheme": parts.scheme,
        "server.address": parts.hostname or "",
        "server.port": parts.port or 0,
    }
