"""What is going on, on stderr: one line that is rewritten on a terminal, a line each elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time

_CLEAR = "\r" + " " * 78 + "\r"  # understood by terminals of every kind


class Progress:
    """Tells the operator that something happens. Never raises: nobody may be listening."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()
        self._rewrites = sys.stderr.isatty()

    def step(self, what: str) -> None:
        """Say what begins now."""
        self._done += 1
        elapsed = time.monotonic() - self._began
        line = f"[{self._done}/{self._steps}] {what} ({elapsed:.0f} s)"
        self._write(_CLEAR + line if self._rewrites else line + "\n")

    def clear(self) -> None:
        """Leave an empty line on a terminal, for the table."""
        if self._rewrites:
            self._write(_CLEAR)

    @staticmethod
    def _write(text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()
