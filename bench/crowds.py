"""The rest of a busy worker: green threads that are runnable, native ones that compute."""

from __future__ import annotations

import threading
from time import perf_counter


class GreenCrowd:
    """Green threads that work for ``work_s`` whenever it is their turn, and want another."""

    def __init__(self, size: int, work_s: float) -> None:
        self._size, self._work_s = size, work_s
        self._is_over = False

    def __enter__(self) -> GreenCrowd:
        import eventlet

        self._is_over = False
        for _ in range(self._size):
            eventlet.spawn(self._live)
        self.lap()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True  # not by kill(), which takes a lap for each of them
        self.lap()

    def lap(self) -> None:
        """Let each of them have its turn."""
        import eventlet

        eventlet.sleep(0)

    def _live(self) -> None:
        while not self._is_over:
            if self._work_s:
                end = perf_counter() + self._work_s
                while perf_counter() < end:
                    pass
            self.lap()


class NativeCrowd:
    """Native threads that compute without end, and so are always waiting for the interpreter."""

    def __init__(self, size: int) -> None:
        self._is_over = False
        self._members = [threading.Thread(target=self._live, daemon=True) for _ in range(size)]

    def __enter__(self) -> NativeCrowd:
        for member in self._members:
            member.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        for member in self._members:
            member.join()

    def _live(self) -> None:
        number = 0
        while not self._is_over:
            number += 1
