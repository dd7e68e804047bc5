"""A counter that threads may share without a lock, on free-threaded builds too."""

from __future__ import annotations

import itertools


class Counter:
    """Counts up from 0.

    ``next()`` on an ``itertools.count`` is one atomic step; ``n += 1`` on an attribute is three,
    and loses counts between threads. A lock would do as well, but under eventlet it could yield.
    """

    __slots__ = ("ticks",)

    def __init__(self) -> None:
        #: for the hot path: ``next(counter.ticks)`` is a tick without the call
        self.ticks = itertools.count()

    def tick(self) -> int:
        """Count one; returns the count before it."""
        return next(self.ticks)

    @property
    def value(self) -> int:
        # its repr, "count(7)", is the one way to read it that all versions have
        return int(repr(self.ticks)[6:-1])
