"""The origins that this process has met: the counters of each, and what was learnt of it.

Beyond :data:`MAX_ORIGINS` origins the others share one entry, and nothing is learnt of them. Idle
times at death are counted in geometric buckets.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Dict, Iterable

from stalepool.knowledge import Knowledge

MAX_ORIGINS = 512
OTHERS = "(other origins)"

#: neighbouring bucket edges differ by a quarter: fine enough to show an idle limit
BUCKET_RATIO = 1.25

#: group of counters -> what it counts; each has a fixed set of names, so memory is bounded
GROUPS = {
    "verdicts": "checks of pooled connections, by verdict",
    "moved": "requests moved to a fresh connection before their first byte, by reason or failed",
    "replays": "requests sent once more, by outcome",
    "replays_refused": "failed requests not sent once more, by the rule that refused",
    "reconnects": "refused connects that were tried again, by outcome; and windows opened",
    "gone": "connections that ended, by reason",
}

#: one more, whose names are buckets: the upper edge in seconds -> connections that died by then
_DIED = "died_idle_s"

#: verdicts that end no connection
NO_DISCARDS = frozenset(("alive", "unknown", "no_socket"))

#: verdicts, and reasons for a move, on connections that urllib3's own check would have kept
LOOKED_ALIVE = frozenset(("tls_pending", "presend_check", "probe_unanswered"))


class Counter:
    """Counts up from 0, shared by threads without a lock: docs/design.rst."""

    __slots__ = ("ticks",)

    def __init__(self) -> None:
        #: for the hot path: ``next(counter.ticks)`` is a tick without the call
        self.ticks = itertools.count()

    def tick(self) -> int:
        """Count one; returns the count before it."""
        return next(self.ticks)

    @property
    def value(self) -> int:
        # its repr, "count(7)", is the only way to read it in all versions
        return int(repr(self.ticks)[6:-1])


class Origin:
    """Counters and knowledge of one scheme, host and port."""

    __slots__ = ("_knowledge", "alive_ticks", "armed", "groups", "kept_off", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._knowledge = Knowledge()
        self.forget_counts()

    @property
    def knowledge(self) -> Knowledge:
        """Return the facts learnt; none for the shared entry: no idle limit counts there."""
        if self.name != OTHERS:
            return self._knowledge
        unknown = Knowledge()
        unknown.stop_moves()
        unknown.note_probes_swallowed()  # so they are no evidence
        return unknown

    def forget_counts(self) -> None:
        """Count from zero. What was learnt stays, except ``has_answered`` and the window."""
        self._knowledge.has_answered, self._knowledge.window_until = False, None
        self.kept_off = Counter()  # connections left in active mode, for a reason in LOOKED_ALIVE
        self.armed = Counter()
        self.groups: Dict[str, Dict[Any, Counter]] = {group: {} for group in (_DIED, *GROUPS)}
        #: of the connections kept, for the fast check
        self.alive_ticks = self.counter("verdicts", "alive").ticks

    def counter(self, group: str, name: Any) -> Counter:
        """Return the counter of one event of :data:`GROUPS`, made at first use."""
        return self.groups[group].setdefault(name, Counter())

    def count(self, group: str, name: str) -> None:
        """Count one event of :data:`GROUPS`, and the connection that is gone by it."""
        self.counter(group, name).tick()
        if (group == "verdicts" and name not in NO_DISCARDS) or (
            group == "moved" and name != "failed"
        ):
            self.count("gone", name)

    def count_death(self, idle_s: float) -> None:
        """Count a connection that had been idle for ``idle_s`` seconds when it died."""
        # the kernel's clock, in 32 bits of ms, comes to 49 days
        upper_edge_s = BUCKET_RATIO ** math.ceil(math.log(max(idle_s, 0.001), BUCKET_RATIO))
        self.counter(_DIED, float("%.3g" % upper_edge_s)).tick()

    def as_dict(self) -> Dict[str, Any]:
        counted = {
            group: {name: n for name, c in sorted(names.copy().items()) if (n := c.value)}
            for group, names in self.groups.items()
        }
        checked = counted["verdicts"]
        return {
            "checkouts": sum(checked.values()),
            "discards": sum(number for name, number in checked.items() if name not in NO_DISCARDS),
            "keepalive_armed": self.armed.value,
            **counted,
            # attempts that urllib3 alone would have lost: docs/status.rst
            "saved": {
                "replayed": counted["replays"].get("ok", 0),
                "kept_off": self.kept_off.value,
                "reconnected": counted["reconnects"].get("ok", 0),
            },
            "knowledge": self._knowledge.as_dict(),
        }


_origins: Dict[str, Origin] = {}


def origin(name: str) -> Origin:
    """Return the entry of an origin, ``scheme://host:port``, made at first use."""
    found = _origins.get(name)
    if found is None:
        key = name if len(_origins) < MAX_ORIGINS else OTHERS
        found = _origins.setdefault(key, Origin(key))  # atomic: two threads get the same entry
    return found


def forget_counts() -> None:
    """Count from zero, as a forked child does: :meth:`Origin.forget_counts` of each origin."""
    for entry in list(_origins.values()):
        entry.forget_counts()


def snapshot() -> Dict[str, Any]:
    """Return the origins and their totals as plain data: dicts, strings, numbers."""
    met = _origins.copy()  # another thread may meet a new one
    origins = {name: met[name].as_dict() for name in sorted(met)}
    totals = summed([Origin("").as_dict(), *origins.values()])
    del totals["knowledge"]
    totals[_DIED] = dict(sorted(totals[_DIED].items()))
    return {"origins": origins, "totals": totals}


def summed(
    parts: Iterable[Dict[str, Any]], signs: Iterable[int] = itertools.repeat(1)
) -> Dict[str, Any]:
    """Add up dicts of numbers and of such dicts; values of other types are left out.

    :param signs: one for each part: -1 subtracts it.
    """
    total: Dict[str, Any] = {}
    for part, sign in zip(parts, signs):
        for key, value in part.items():
            if isinstance(value, dict):
                total[key] = summed([total.get(key, {}), value], (1, sign))
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                total[key] = total.get(key, 0) + sign * value
    return total
