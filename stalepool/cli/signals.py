"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it has started is ended first."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Any, Callable, Iterator, List


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise SystemExit in the block, as Ctrl-C raises KeyboardInterrupt.

    A signal that is ignored, as under nohup, or that has a handler is not changed.
    """
    all_of_them = (signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in all_of_them if signal.getsignal(number) == signal.SIG_DFL]
    with _handled(numbers, lambda number, frame: sys.exit(128 + number)):
        yield


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have signals that would end the command take effect only at the end of the block."""
    all_of_them = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in all_of_them if callable(signal.getsignal(number))]
    came: List[int] = []
    with _handled(numbers, lambda number, frame: came.append(number)):
        yield
    for number in came:
        signal.raise_signal(number)


@contextlib.contextmanager
def _handled(numbers: List[signal.Signals], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Have a handler for signals in the block, and after it what they had before."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
