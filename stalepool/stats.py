"""Counters by origin and by verdict, and the ages at which connections died. No I/O, no locks.

Whatever the traffic, memory is bounded: at most :data:`MAX_ORIGINS` origins are told apart, the
rest shares one entry, and ages fall into geometric buckets.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List

from stalepool.counting import Counter
from stalepool.verdict import Verdict

MAX_ORIGINS = 512
OTHERS = "(other origins)"

#: two neighbouring bucket edges differ by a quarter: fine enough to read an idle timeout off them
BUCKET_RATIO = 1.25
_LONGEST_BUCKET = math.ceil(math.log(7 * 86400, BUCKET_RATIO))
_SHORTEST_BUCKET = math.floor(math.log(0.001, BUCKET_RATIO))


class Origin:
    """What was seen of one scheme, host and port."""

    __slots__ = ("verdicts", "armed", "died")

    def __init__(self) -> None:
        self.verdicts = {verdict: Counter() for verdict in Verdict}
        self.armed = Counter()
        self.died: Dict[int, Counter] = {}  # bucket number -> deaths

    def count_death(self, age_s: float) -> None:
        """Count a connection that had been idle for ``age_s`` seconds when it died."""
        bucket = math.ceil(math.log(max(age_s, 0.001), BUCKET_RATIO))
        bucket = min(max(bucket, _SHORTEST_BUCKET), _LONGEST_BUCKET)
        self.died.setdefault(bucket, Counter()).tick()

    def as_dict(self) -> Dict[str, Any]:
        return _summary(
            {verdict: counter.value for verdict, counter in self.verdicts.items()},
            self.armed.value,
            {bucket: counter.value for bucket, counter in list(self.died.items())},
        )


_origins: Dict[str, Origin] = {}


def origin(name: str) -> Origin:
    """The counters of an origin, made at first use."""
    found = _origins.get(name)
    if found is None:
        # setdefault on a dict is atomic: two threads get the same entry
        found = _origins.setdefault(name if len(_origins) < MAX_ORIGINS else OTHERS, Origin())
    return found


def forget() -> None:
    """Start again from zero, as a forked child does."""
    _origins.clear()


def snapshot() -> Dict[str, Any]:
    """The origins and their totals as plain data: dicts, strings, numbers."""
    origins = {name: entry.as_dict() for name, entry in sorted(_origins.items())}
    return {"origins": origins, "totals": _total(list(origins.values()))}


def _summary(verdicts: Dict[Verdict, int], armed: int, died: Dict[int, int]) -> Dict[str, Any]:
    return {
        "checkouts": sum(verdicts.values()),
        "discards": sum(count for verdict, count in verdicts.items() if verdict.is_discard),
        "verdicts": {verdict.value: count for verdict, count in verdicts.items() if count},
        "keepalive_armed": armed,
        # upper edge of the bucket in seconds -> connections that died at such an age
        "died_idle_s": {_edge_s(bucket): died[bucket] for bucket in sorted(died)},
    }


def _edge_s(bucket: int) -> float:
    return float("%.3g" % BUCKET_RATIO**bucket)


def _total(entries: List[Dict[str, Any]]) -> Dict[str, Any]:
    total: Dict[str, Any] = _summary({}, 0, {})
    for entry in entries:
        for key, value in entry.items():
            if isinstance(value, dict):
                for inner, count in value.items():
                    total[key][inner] = total[key].get(inner, 0) + count
            else:
                total[key] += value
    total["died_idle_s"] = dict(sorted(total["died_idle_s"].items()))
    return total
