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


#: what is counted beside verdicts: group -> what it counts. The names within a group are closed
#: sets of their modules (:data:`stalepool.replay.RULES` for one), so they take bounded memory
GROUPS = {
    "moved": "requests that took a fresh connection before a byte of them was out, by reason",
    "replays": "requests sent once more, by outcome",
    "replays_refused": "failed requests not sent once more, by the rule that refused",
    "reconnects": "refused connects that were tried again, by outcome; and windows opened",
}


class Origin:
    """What was seen of one scheme, host and port."""

    __slots__ = ("armed", "died", "groups", "verdicts")

    def __init__(self) -> None:
        self.verdicts = {verdict: Counter() for verdict in Verdict}
        self.armed = Counter()
        self.died: Dict[int, Counter] = {}  # bucket number -> deaths
        self.groups: Dict[str, Dict[str, Counter]] = {group: {} for group in GROUPS}

    def count(self, group: str, name: str) -> None:
        """Count one event of :data:`GROUPS`."""
        self.groups[group].setdefault(name, Counter()).tick()

    def count_death(self, age_s: float) -> None:
        """Count a connection that had been idle for ``age_s`` seconds when it died."""
        bucket = math.ceil(math.log(max(age_s, 0.001), BUCKET_RATIO))
        bucket = min(max(bucket, _SHORTEST_BUCKET), _LONGEST_BUCKET)
        self.died.setdefault(bucket, Counter()).tick()

    def as_dict(self) -> Dict[str, Any]:
        verdicts = {verdict: counter.value for verdict, counter in self.verdicts.items()}
        return {
            "checkouts": sum(verdicts.values()),
            "discards": sum(count for verdict, count in verdicts.items() if verdict.is_discard),
            "verdicts": {verdict.value: count for verdict, count in verdicts.items() if count},
            "keepalive_armed": self.armed.value,
            # upper edge of the bucket in seconds -> connections that died at such an age
            "died_idle_s": {
                _edge_s(bucket): self.died[bucket].value for bucket in sorted(self.died)
            },
            **{
                group: {name: names[name].value for name in sorted(names)}
                for group, names in self.groups.items()
            },
        }


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


def _edge_s(bucket: int) -> float:
    return float("%.3g" % BUCKET_RATIO**bucket)


def _total(entries: List[Dict[str, Any]]) -> Dict[str, Any]:
    total = Origin().as_dict()
    for entry in entries:
        for key, value in entry.items():
            if isinstance(value, dict):
                for inner, count in value.items():
                    total[key][inner] = total[key].get(inner, 0) + count
            else:
                total[key] += value
    total["died_idle_s"] = dict(sorted(total["died_idle_s"].items()))
    return total
