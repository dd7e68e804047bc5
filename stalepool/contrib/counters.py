"""The counters of :func:`stalepool.snapshot` as a list of metrics, for any metrics library.

Labels are bounded: ``origin`` by :data:`stalepool.stats.MAX_ORIGINS`; the others are closed sets.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, NamedTuple, Tuple

from stalepool import stats

#: group of :data:`stalepool.stats.GROUPS` -> the label for the names in it
_LABELS = {"verdicts": "verdict", "replays": "outcome", "reconnects": "outcome", "saved": "how"}

#: what is counted by origin, and then by name
_BY_NAME = {
    **stats.GROUPS,
    "saved": "attempts that urllib3 alone would have lost, by what saved them",
}


class Metric(NamedTuple):
    """One counter."""

    name: str
    help: str
    labels: Tuple[str, ...]
    samples: Dict[Any, int]  # by the labels' values, a tuple


def counters(seen: Dict[str, Any]) -> Iterator[Metric]:
    """Generate all counters of a snapshot."""
    origins: Dict[str, Dict[str, Any]] = seen["origins"]
    for group, meaning in _BY_NAME.items():
        labels = ("origin", _LABELS.get(group, "reason"))
        samples = {
            (origin, name): count
            for origin, counted in origins.items()
            for name, count in counted[group].items()
        }
        yield Metric(group, meaning, labels, samples)
    for name, meaning in (
        ("discards", "connections discarded at checkout"),
        ("keepalive_armed", "sockets whose keepalive options were changed"),
    ):
        by_origin = {(origin,): counted[name] for origin, counted in origins.items()}
        yield Metric(name, meaning, ("origin",), by_origin)
    fallbacks = {(reason,): count for reason, count in seen["fallbacks"].items()}
    yield Metric("fallbacks", "fallbacks to urllib3", ("reason",), fallbacks)
