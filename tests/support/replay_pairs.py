"""Every pair of factors in few cases: written out by a small greedy search, the same each time."""

from __future__ import annotations

import itertools
from typing import Any, Callable, FrozenSet, List, Sequence, Set, Tuple

Case = Tuple[Any, ...]
Pair = Tuple[int, Any, int, Any]  # a factor by its number, its value, another one, its value


def full_product(factors: Sequence[Sequence[Any]], is_possible: Callable[..., bool]) -> List[Case]:
    return [case for case in itertools.product(*factors) if is_possible(*case)]


def pairwise(factors: Sequence[Sequence[Any]], is_possible: Callable[..., bool]) -> List[Case]:
    """Cases in which every two values of two factors occur together that can.

    :param factors: the values of each.
    :param is_possible: whether a combination of one value each can be.
    """
    candidates = [(case, pairs_of(case)) for case in full_product(factors, is_possible)]
    missing: Set[Pair] = set().union(*(pairs for _, pairs in candidates))
    chosen = []
    while missing:
        case, pairs = max(candidates, key=lambda candidate: len(candidate[1] & missing))
        missing -= pairs
        chosen.append(case)
    return chosen


def pairs_of(case: Case) -> FrozenSet[Pair]:
    numbered = list(enumerate(case))
    return frozenset(
        (one, value, other, other_value)
        for (one, value), (other, other_value) in itertools.combinations(numbered, 2)
    )
