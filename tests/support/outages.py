"""A server that refuses connects for a while, and the pauses of a client's tries."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from pools import shim, stock
from replay_routes import Route, direct

WINDOW_S = 0.4

both = pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])


def window(**settings):
    """The shim, with a short one."""
    return shim(**{"reconnect_window_s": WINDOW_S, **settings})


@contextlib.contextmanager
def outage(window_s=WINDOW_S, back_in_s=None, **options) -> Iterator[Route]:
    """With the shim: a server that has answered, and refuses now; for so long."""
    with shim(reconnect_window_s=window_s), direct(**options) as way:
        way.begin_outage()
        if back_in_s is not None:
            threading.Timer(back_in_s, way.gate.listen).start()
        yield way


class Sleeper:
    """Stands in for the ``time`` of urllib3's retries: keeps a record, and acts after a pause.

    :ivar pauses: the seconds of each, of this thread.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self.act: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @property
    def pauses(self) -> List[float]:
        return vars(self._local).setdefault("pauses", [])

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        time.sleep(seconds)
        self.act()

    def after(self, count: int, act: Callable[[], None]) -> None:
        self.act = lambda: act() if len(self.pauses) == count else None


def environ_of(who: Any) -> Dict[str, str]:
    """For clients in a process of their own, which ``import stalepool`` has installed."""
    return {"STALEPOOL_ENABLED": "0" if who is stock else "1"}
