"""Numbers with an interval, and the bounds they are held to."""

from __future__ import annotations

import math
import statistics
from typing import Any, Dict, NamedTuple, Sequence

#: of so many intervals, one misses the true value: 95 %
_ONE_IN = 20


class Quantity(NamedTuple):
    """A median, and the interval that holds the true one with a probability of 95 %.

    The interval is made of order statistics: it assumes nothing about how the noise is distributed.
    With fewer than six samples it is all there is, from the lowest to the highest.
    """

    median: float
    low: float
    high: float
    samples: int

    def as_dict(self) -> Dict[str, Any]:
        return self._asdict()


def of_samples(samples: Sequence[float]) -> Quantity:
    ordered = sorted(samples)
    outside = _outside(len(ordered))
    return Quantity(
        statistics.median(ordered), ordered[outside], ordered[-1 - outside], len(ordered)
    )


def of_ratios(over: Sequence[float], under: Sequence[float]) -> Quantity:
    """Of the ratio in each round; what slowed a whole round down cancels out."""
    return of_samples([a / b for a, b in zip(over, under)])


def exactly(value: float) -> Quantity:
    """What is counted and not measured."""
    return Quantity(value, value, value, 1)


def of_share(hits: int, trials: int, per: float = 1.0) -> Quantity:
    """How many of ``per`` trials hit, with Wilson's score interval."""
    z, share = statistics.NormalDist().inv_cdf(1 - 1 / (2 * _ONE_IN)), hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    spread *= z / (1 + z * z / trials)
    return Quantity(
        per * share, per * max(0.0, middle - spread), per * min(1.0, middle + spread), trials
    )


def _outside(count: int) -> int:
    """How many samples at each end lie outside of the interval for the median.

    Each sample is below the true median by the toss of a coin, so the number that are is binomial.
    In whole numbers: 0.5 ** 2000 is none.
    """
    outside, ways, ways_below = 0, 1, 1
    while 2 * ways_below * _ONE_IN <= 2**count:
        outside += 1
        ways = ways * (count - outside + 1) // outside
        ways_below += ways
    return max(0, outside - 1)


class Bound(NamedTuple):
    """What a quantity must be. Its median is judged; the interval says how much that is worth."""

    at_least: float = -math.inf
    at_most: float = math.inf

    def is_met(self, quantity: Quantity) -> bool:
        return self.at_least <= quantity.median <= self.at_most

    def __str__(self) -> str:
        if self.at_least > -math.inf:
            return "at least %g" % self.at_least
        return "at most %g" % self.at_most
