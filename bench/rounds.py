"""Several functions timed by turns, in many short rounds."""

from __future__ import annotations

import math
import types
from itertools import repeat
from time import perf_counter
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional

Samples = Dict[str, List[float]]

#: rounds it takes for an interval that is more than the lowest and the highest
_FEWEST = 7


class Contestant(NamedTuple):
    """``function(argument)`` is timed; ``prepare()`` comes before each slice and is not."""

    function: Callable[[Any], Any]
    argument: Any
    prepare: Optional[Callable[[], object]] = None


class Contest:
    """Times each contestant for a slice a round.

    :param slice_s: about how long a slice takes, in seconds.
    :param times: calls in a slice, the same for all, instead.
    """

    def __init__(
        self, contestants: Dict[str, Contestant], slice_s: float = 0.001, times: int = 0
    ) -> None:
        self._contestants = contestants
        self._loops = {name: _own_loop() for name in contestants}
        self._times = {name: times or self._calibrated(name, slice_s) for name in contestants}
        self._round = 0

    def round(self) -> Dict[str, float]:
        """Seconds per call of each contestant, the loop around it included.

        Each round begins with another, and every second one goes backwards: a drift cancels out.
        """
        names = list(self._contestants)
        first = self._round % len(names)
        order = names[first:] + names[:first]
        if self._round % 2:
            order.reverse()
        self._round += 1
        return {name: self._slice(name, self._times[name]) for name in order}

    def rounds(self, count: int, limit_s: float = math.inf) -> Samples:
        """The rounds' samples by contestant; a first round is thrown away.

        :param limit_s: where the time is up there are fewer of them, but no fewer than seven.
        """
        self.round()
        done: List[Dict[str, float]] = []
        ends = perf_counter() + limit_s
        while len(done) < count and (len(done) < _FEWEST or perf_counter() < ends):
            done.append(self.round())
        return by_name(done)

    def _slice(self, name: str, times: int) -> float:
        function, argument, prepare = self._contestants[name]
        if prepare is not None:
            prepare()
        return self._loops[name](function, argument, times) / times

    def _calibrated(self, name: str, slice_s: float) -> int:
        times = 1
        self._slice(name, times)  # the first call may be a long one
        # the shorter of two: an interruption must not pass for a slow call
        while min(self._slice(name, times), self._slice(name, times)) * times < slice_s:
            times *= 2
        return times


def by_name(rounds: Iterable[Dict[str, float]]) -> Samples:
    samples: Samples = {}
    for one in rounds:
        for name, sample in one.items():
            samples.setdefault(name, []).append(sample)
    return samples


def _loop(function: Callable[[Any], Any], argument: Any, times: int) -> float:
    began = perf_counter()
    for _ in repeat(None, times):
        function(argument)
    took: float = perf_counter() - began
    return took


def _own_loop() -> Callable[..., float]:
    # one each: from 3.11 on the interpreter specialises the call for what it finds there
    return types.FunctionType(_loop.__code__.replace(), globals())
