"""A pipe by which a thread that waits in poll() is woken, and given something to do."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Callable, Mapping

from stalepool_testing import kernel
from stalepool_testing.kernel import POLLIN


class Doorbell:
    """One thread waits; others may give it something to do meanwhile."""

    def __init__(self) -> None:
        self._orders: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._ear, self._button = os.pipe()
        for descriptor in (self._ear, self._button):
            os.set_blocking(descriptor, False)

    def wait(
        self, descriptors: Mapping[int, int], timeout_s: float | None = None
    ) -> dict[int, int]:
        """Wait as :func:`~stalepool_testing.kernel.wait` does, and carry out orders meanwhile.

        :raises Exception: an exception of an order ends the wait.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        wanted = {**descriptors, self._ear: POLLIN}
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            found = kernel.wait(wanted, left)
            if self._ear in found:
                os.read(self._ear, 4096)
                while self._orders:
                    self._orders.popleft()()
            elif found or left is not None:
                return found

    def tell(self, order: Callable[[], None]) -> bool:
        """Have the waiting thread do something, now or the next time it waits.

        :returns: False if it will never wait again.
        """
        with self._lock:
            if self._button < 0:
                return False
            self._orders.append(order)
            try:
                os.write(self._button, b"!")
            except BlockingIOError:
                pass  # the pipe is full: the thread will wake
            return True

    def close(self) -> None:
        """End the use; called by the thread that has waited."""
        with self._lock:
            os.close(self._ear)
            os.close(self._button)
            self._ear = self._button = -1
