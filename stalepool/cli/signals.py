"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it has started is ended first."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Iterator, List


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise SystemExit in the block, as Ctrl-C raises KeyboardInterrupt.

    A signal that is ignored, as under nohup, or that has a handler is not changed.
    """
    all_of_them = (signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in all_of_them if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, lambda n, frame: sys.exit(128 + n))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have signals that would end the command take effect only at the end of the block."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.getsignal(n) for n in numbers if callable(signal.getsignal(n))}
    came: List[int] = []
    for number in before:
        signal.signal(number, lambda n, frame: came.append(n))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for each in came:
        signal.raise_signal(each)
