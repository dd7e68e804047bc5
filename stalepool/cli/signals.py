"""Signals that end a command which has children."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Iterator


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP leave the block by SystemExit, as Ctrl-C does by its own exception.

    One that is ignored, as nohup has it, or handled already is left alone.
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
