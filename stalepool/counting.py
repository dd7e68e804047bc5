"""A counter that threads may share without a lock, on free-threaded builds too."""

from __future__ import annotations

import itertools


class Counter:
    """Counts up from 0.

    ``next()`` on an ``itertools.count`` is one atomic step; ``n += 1`` on an attribute is three,
    and loses counts between threads. A lock would do as well, but under eventlet it could yield.
    """

    __slots__ = ("_ticks", "tick")

    def __init__(self) -> None:
        self._ticks = itertools.count()
        #: counts one, and returns the count before it; a bound C method, for the hot path
        self.tick = self._ticks.__next__

    @property
    def value(self) -> int:
        # its repr, "count(7)", is the one way to read it that all versions have
        return int(repr(self._ticks)[6:-1])
