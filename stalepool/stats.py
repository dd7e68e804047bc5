"""The origins that this process has met: the counters of each, and what was learnt of it.

Learnt are its idle limit, whether it answers keepalive probes, and an outage: docs/replay.rst.
Beyond :data:`MAX_ORIGINS` origins the others share one entry, and nothing is learnt of them. Idle
times at death are counted in geometric buckets.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Dict, Iterable, List, Optional, Tuple

from stalepool.clock import monotonic

MAX_ORIGINS, OTHERS = 512, "(other origins)"
BUCKET_RATIO = 1.25  #: of neighbouring bucket edges: fine enough to show an idle limit

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

#: verdicts that end no connection: it is kept, or there is none
NO_DISCARDS = frozenset(("alive", "unknown", "no_socket"))

#: verdicts, and reasons for a move, on connections that urllib3's own check would have kept
LOOKED_ALIVE = frozenset(("tls_pending", "presend_check", "probe_unanswered"))

#: how long each piece of knowledge is believed, in seconds
SWALLOWED_FOR_S = 86400.0
OBSERVED_FOR_S = 3600.0
NO_MOVES_FOR_S = 300.0

MOST_MOVES_A_MINUTE = 60  #: near an idle limit; the port of each is in TIME_WAIT for a minute
TIMES_OUTLIVED = 3  #: an announced idle limit, before it is ignored: clocks may be coarse


class Counter:
    """Counts up from 0, shared by threads without a lock: docs/design.rst."""

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


class Knowledge:
    """Facts learnt of one origin; each is written in one step, so that threads need no lock."""

    has_answered = False  #: a request of this process
    answers_probes = False  #: TCP keepalive probes
    _swallowed_until = 0.0
    _fins: Tuple[Tuple[float, float], ...] = ()  # (monotonic time, idle time in seconds)
    _moves_stopped_until = 0.0
    _moves: Tuple[float, int] = (0.0, 0)  # since when, and how many
    #: from when on a connection whose probes are unanswered may be left; a failed move sets it
    move_again_at = 0.0
    #: announced idle limits up to this one are untrue; and how often others were outlived so far
    untrue_limit_s = 0.0
    _outlived = 0
    #: the end of the reconnect window that all share; None: no outage, so none was opened
    window_until: Optional[float] = None

    @property
    def window_is_open(self) -> bool:
        return monotonic() < (self.window_until or 0.0)

    def note_answered(self) -> None:
        """Note that a fresh connection was answered: its peer answers, and any outage is over."""
        self.has_answered, self.window_until = True, None

    def note_probe_answered(self) -> None:
        self.answers_probes, self._swallowed_until = True, 0.0

    def note_probes_swallowed(self) -> None:
        """Note that a living connection's probes go unanswered, so they are no evidence."""
        self.answers_probes, self._swallowed_until = False, monotonic() + SWALLOWED_FOR_S

    @property
    def swallows_probes(self) -> bool:
        return monotonic() < self._swallowed_until

    def note_fin(self, idle_s: float) -> None:
        """Note an idle time, in seconds, by which the origin had closed a connection.

        Of two that disagree the shorter one counts: docs/replay.rst. One below a second does not
        count: the server may close after so many answers. Connections that end together count once.
        """
        now, fins = monotonic(), self._believed_fins()
        if idle_s < 1.0 or (fins and now - fins[-1][0] <= 0.9 * idle_s):
            return
        fins.append((now, idle_s))
        longest_s = 1.25 * min(idle for _, idle in fins)
        self._fins = tuple(fin for fin in fins if fin[1] <= longest_s)[-3:]

    def note_alive(self, idle_s: float) -> None:
        """Note that a connection is alive after so many seconds, and forget what that disproves."""
        self._fins = tuple(fin for fin in self._fins if idle_s <= fin[1] + 1.0)

    @property
    def observed_idle_limit_s(self) -> Optional[float]:
        """Return the shortest of the last three idle times at death, if they agree."""
        fins = self._believed_fins() if self._fins else ()  # asked before each POST
        return min(idle_s for _, idle_s in fins) if len(fins) == 3 else None

    def _believed_fins(self) -> List[Tuple[float, float]]:
        return [fin for fin in self._fins if fin[0] > monotonic() - OBSERVED_FOR_S]

    def note_outlived(self, limit_s: float) -> None:
        """Note a connection that outlives an announced limit, perhaps that of one backend."""
        self._outlived += 1
        if self._outlived >= TIMES_OUTLIVED:
            self.untrue_limit_s, self._outlived = max(limit_s, self.untrue_limit_s), 0

    def stop_moves(self) -> None:
        """Stop moves near an idle limit for a while: one begins, and may lose its request."""
        self._moves_stopped_until = monotonic() + NO_MOVES_FOR_S

    def resume_moves(self) -> None:
        """Permit moves near an idle limit again: the moved request was answered well."""
        self._moves_stopped_until = 0.0

    def note_move(self) -> None:
        now, (since, count) = monotonic(), self._moves
        if now - since >= 60:
            since, count = now, 0
        self._moves = since, count + 1

    @property
    def moves_stopped_for_s(self) -> int:
        """Whole seconds until moves are made again; 0 where they are not stopped."""
        since, count = self._moves
        too_many_until = since + 60 if count >= MOST_MOVES_A_MINUTE else 0.0
        return max(0, math.ceil(max(self._moves_stopped_until, too_many_until) - monotonic()))

    def as_dict(self) -> Dict[str, Any]:
        probes = "answered" if self.answers_probes else "unknown"
        stopped_for_s = self.moves_stopped_for_s  # in the first second a move is under way
        return {
            "has_answered": self.has_answered,
            "keepalive_probes": "swallowed" if self.swallows_probes else probes,
            "observed_idle_limit_s": self.observed_idle_limit_s,
            "moves_stopped_for_s": stopped_for_s if stopped_for_s < NO_MOVES_FOR_S else 0,
        }


class Origin:
    """Counters and knowledge of one scheme, host and port."""

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
        if group in ("verdicts", "moved") and name not in (*NO_DISCARDS, "failed"):
            self.count("gone", name)

    def count_death(self, idle_s: float) -> None:
        """Count a connection that had been idle for ``idle_s`` seconds when it died."""
        # not endless: the kernel's clock, of 32 bits of ms, ends at 49 days
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
    met = sorted(_origins.copy().items())  # another thread may meet a new one
    origins = {name: entry.as_dict() for name, entry in met}
    totals = summed([Origin("").as_dict(), *origins.values()])
    del totals["knowledge"]
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
