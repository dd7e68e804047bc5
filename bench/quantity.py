"""Numbers with an interval."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple, Sequence


class Quantity(NamedTuple):
    """A median, and the interval that holds the true one with a probability of 95 %.

    The interval is made of order statistics: it assumes nothing about how the noise is distributed.
    With fewer than six samples it is all there is, from the lowest to the highest.
    """

    median: float
    low: float
    high: float
    samples: int


def of_samples(samples: Sequence[float]) -> Quantity:
    ordered = sorted(samples)
    count = len(ordered)
    # each is below the true median by the toss of a coin: two deviations of a binomial, and a half
    outside = max(0, int(count / 2 - math.sqrt(count) - 0.5))
    return Quantity(statistics.median(ordered), ordered[outside], ordered[-1 - outside], count)


def of_share(hits: int, trials: int, per: float = 1.0) -> Quantity:
    """How many of ``per`` trials hit, with Wilson's score interval."""
    z, share = statistics.NormalDist().inv_cdf(0.975), hits / trials
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    low, high = ((middle + sign * spread) / (1 + z * z / trials) for sign in (-1, 1))
    return Quantity(per * share, per * max(0.0, low), per * min(1.0, high), trials)


def is_met(bound: str, value: float) -> bool:
    """Hold a value to ``at most X`` or ``at least X``."""
    words, _, limit = bound.rpartition(" ")
    return value <= float(limit) if words == "at most" else value >= float(limit)
