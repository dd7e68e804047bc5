"""A client's way to a server that refuses connects for a while, and the pauses of its tries."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import pytest
from urllib3.exceptions import NewConnectionError

from pools import await_arrival, counters, serving, shim, stock
from stalepool.connection import connect
from stalepool_testing import FaultServer

WINDOW_S = 0.4

both = pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])


def window(**settings):
    """The shim, with a short one."""
    return shim(**{"reconnect_window_s": WINDOW_S, **settings})


def as_a_new_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function as a thread would that has not waited for any outage yet."""
    with pytest.MonkeyPatch.context() as patched:
        never = float("-inf"), 0.0
        patched.setitem(connect.attributes_of_thread(), connect.WAITED, never)
        return call(*args, **kwargs)


class Route(NamedTuple):
    """A client's way to a server.

    ``gate``: what it connects to, the server itself or a proxy. ``send``: a method's name -> the
    status, each as a thread of its own. ``origin``: whose counters tell of it.
    """

    server: FaultServer
    gate: Any
    pool: Any
    send: Callable[..., int]
    origin: Any

    def shut(self) -> None:
        """The outage begins, and the pooled connection has noticed."""
        self.gate.stop_listening()
        self.gate.close_connections()
        await_arrival(self.pool)

    @property
    def reconnects(self) -> dict:
        return counters(self.origin).get("reconnects", {})

    def is_refused(self, method: str = "GET") -> NewConnectionError:
        """Send a request that gets no connection; its error."""
        with pytest.raises(NewConnectionError) as caught:
            self.send(method)
        return caught.value

    def begin_outage(self) -> None:
        """It has answered, and refuses now."""
        assert self.send("GET") == 200
        self.shut()


@contextlib.contextmanager
def direct(script=(), *, tls=None, family=socket.AF_INET, **options) -> Iterator[Route]:
    with serving(script, tls=tls, family=family, **options) as (server, pool):

        def send(method):
            return as_a_new_thread(pool.request, method, "/").status

        yield Route(server, server, pool, send, server)


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
        if not hasattr(self._local, "pauses"):
            self._local.pauses = []
        found: List[float] = self._local.pauses
        return found

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        time.sleep(seconds)
        self.act()

    def after(self, count: int, act: Callable[[], None]) -> None:
        self.act = lambda: act() if len(self.pauses) == count else None


def environ_of(who: Any) -> Dict[str, str]:
    """For clients in a process of their own, which ``import stalepool`` has installed."""
    return {"STALEPOOL_ENABLED": "0" if who is stock else "1"}
