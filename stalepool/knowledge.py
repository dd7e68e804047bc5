"""Facts learnt of one origin: its idle limit, keepalive probes, an outage. docs/replay.rst."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Tuple

from stalepool.clock import monotonic

#: how long each piece of knowledge is believed, in seconds
SWALLOWED_FOR_S = 86400.0
OBSERVED_FOR_S = 3600.0
NO_MOVES_FOR_S = 300.0

#: moves near an idle limit; the kernel keeps the port of each in TIME_WAIT for a minute
MOST_MOVES_A_MINUTE = 60

#: how often an announced idle limit has to be outlived before it is ignored; not once, since the
#: server's clock may be coarse
TIMES_OUTLIVED = 3


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
    def window_left_s(self) -> float:
        """Seconds until the window closes; 0 once it is closed."""
        return max(0.0, (self.window_until or 0.0) - monotonic())

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

        Of two that disagree the shorter one counts: docs/replay.rst. Below a second the server may
        close after a number of answers. Connections that end together count as one.
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
        """Return the shortest of the last three idle times at death, which agree by a quarter."""
        fins = self._believed_fins() if self._fins else ()  # asked before each POST
        return min(idle_s for _, idle_s in fins) if len(fins) == 3 else None

    def _believed_fins(self) -> List[Tuple[float, float]]:
        return [fin for fin in self._fins if fin[0] > monotonic() - OBSERVED_FOR_S]

    def note_outlived(self, limit_s: float) -> None:
        """Note a connection that outlives an announced limit, which may be a backend's."""
        self._outlived += 1
        if self._outlived >= TIMES_OUTLIVED:
            self.untrue_limit_s, self._outlived = max(limit_s, self.untrue_limit_s), 0

    def stop_moves(self) -> None:
        """Stop moves for a while: one failed, was slow, or lost its request."""
        self._moves_stopped_until = monotonic() + NO_MOVES_FOR_S

    def note_move(self) -> None:
        """Note a move near an idle limit, and stop further ones if there are too many."""
        now, (since, count) = monotonic(), self._moves
        if now - since >= 60:
            since, count = now, 0
        self._moves = since, count + 1
        if count + 1 >= MOST_MOVES_A_MINUTE:
            self._moves_stopped_until = max(self._moves_stopped_until, since + 60)

    @property
    def moves_stopped_for_s(self) -> int:
        """Whole seconds until moves are made again; 0 where they are not stopped."""
        return max(0, math.ceil(self._moves_stopped_until - monotonic()))

    def as_dict(self) -> Dict[str, Any]:
        probes = "answered" if self.answers_probes else "unknown"
        return {
            "has_answered": self.has_answered,
            "keepalive_probes": "swallowed" if self.swallows_probes else probes,
            "observed_idle_limit_s": self.observed_idle_limit_s,
            "moves_stopped_for_s": self.moves_stopped_for_s,
        }
