"""Exceptions raised in the midst of a request: by a signal handler, and at each line of ours.

Both are run in a process of their own, and print what became of the exceptions as JSON.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import queue
import random
import signal
import sys
from time import perf_counter
from typing import Any, Callable, Dict, List, Optional, Tuple

import urllib3

import stalepool
from pools import await_arrival, let_pass, pooled_connection
from stalepool_testing import CloseAfter, FaultServer, ProcessThenClose, Respond, kernel

_OURS = os.path.dirname(os.path.abspath(stalepool.__file__)) + os.sep


class Foreign(Exception):
    """Raised by code that the request did not call."""


class Script:
    """Answers, but for the first try of each request whose path says otherwise."""

    def __init__(self) -> None:
        self._seen: Dict[str, int] = {}

    def __call__(self, request: Any) -> Any:
        tries = self._seen[request.path] = self._seen.get(request.path, 0) + 1
        if request.path.startswith("/dies") and tries == 1:
            return ProcessThenClose()
        hint = {"Keep-Alive": "timeout=1"} if request.path.startswith("/hint") else {}
        return Respond(headers=hint)


# -- a signal handler's ----------------------------------------------------------------------------


class Places:
    """A pool's places without a lock: an exception in ``queue`` itself may leave it locked."""

    def __init__(self, size: int) -> None:
        self.queue: List[Any] = []
        self._size = size

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        if not self.queue:
            raise queue.Empty
        return self.queue.pop()

    def put(self, item: Any, block: bool = True) -> None:
        if len(self.queue) >= self._size:
            raise queue.Full
        self.queue.append(item)

    def qsize(self) -> int:
        return len(self.queue)


class Pool(urllib3.HTTPConnectionPool):
    QueueCls = Places  # type: ignore[assignment]


def alarms(count: int) -> None:
    """Count how many of so many exceptions of a signal handler did not reach who posts.

    With the shim and without by turns, until it has fired so often in both: how many come in time
    depends on how evenly the machine runs.
    """

    def handle(number: int, frame: Any) -> None:
        nonlocal fired
        fired += 1
        raise Foreign

    fired = 0
    unraisable: List[Any] = []
    sys.unraisablehook = unraisable.append
    signal.signal(signal.SIGALRM, handle)
    seen = {"stock": [0, 0], "shim": [0, 0]}  # fired, lost
    options = {"maxsize": 1, "retries": False, "timeout": 20.0}
    with FaultServer() as server, Pool("127.0.0.1", server.port, **options) as pool:
        takes_s = _seconds_of(lambda: pool.request("POST", "/", body=b"pay 10"))
        for name in itertools.cycle(seen):
            if min(times for times, _ in seen.values()) >= count:
                break
            (stalepool.uninstall if name == "stock" else stalepool.install)()
            pool.request("GET", "/")  # reused from here on
            fired, reached = 0, 0
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1.2 * takes_s))
                pool.request("POST", "/", body=b"pay 10")
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Foreign:
                reached = 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            seen[name][0] += fired
            seen[name][1] += fired - reached
    print(json.dumps(seen))


def _seconds_of(call: Callable[[], Any], times: int = 50) -> float:
    """How long a call takes, in the median."""
    taken = []
    for _ in range(times):
        began = perf_counter()
        call()
        taken.append(perf_counter() - began)
    return sorted(taken)[times // 2]


def is_as_many(stock: int, shim: int) -> bool:
    """Tell whether the shim loses no more than stock, as far as counts of rare things tell."""
    return shim <= stock + 4 * math.sqrt(stock + shim + 1)


# -- one at each line of ours ----------------------------------------------------------------------


class Injector:
    """Raises at the n-th line of ours that this thread executes; once.

    :ivar place: where it did, None where there are fewer lines.
    """

    def __init__(self, line: int) -> None:
        self._left = line
        self.place: Optional[str] = None

    def __enter__(self) -> Injector:
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        sys.settrace(None)

    def _enter_frame(self, frame: Any, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        return self._at_line if name.startswith(_OURS) else None

    def _at_line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and self.place is None:
            self._left -= 1
            if self._left < 0:
                where = os.path.relpath(frame.f_code.co_filename, _OURS)
                self.place = "%s:%d %s" % (where, frame.f_lineno, frame.f_code.co_name)
                raise Foreign
        return self._at_line


def _nothing(server: FaultServer, pool: Any) -> None:
    pass


def _close_idle(server: FaultServer, pool: Any) -> None:
    server.perform(CloseAfter(0))
    await_arrival(pool)


def _close_connection(server: FaultServer, pool: Any) -> None:
    pooled_connection(pool).close()


def _make_full_check_due(server: FaultServer, pool: Any) -> None:
    let_pass(pool, 10)


def _close_after_checkout(server: FaultServer, pool: Any) -> None:
    """The FIN arrives between the look at checkout and the first byte."""
    stock = pool._validate_conn

    def _validate_conn(conn: Any) -> None:
        del pool._validate_conn
        server.perform(CloseAfter(0))
        kernel.wait_readable(conn.sock)
        stock(conn)

    pool._validate_conn = _validate_conn


#: name -> (method, path, path of the answer before, what is done meanwhile, settings)
SCENES: Dict[str, Tuple[str, str, str, Callable[[FaultServer, Any], None], Dict[str, Any]]] = {
    "GET, full check": ("GET", "/", "/", _make_full_check_due, {}),
    "GET, sent again": ("GET", "/dies/%d", "/", _nothing, {}),
    "POST, its answer lost": ("POST", "/dies/%d", "/", _nothing, {}),
    "POST, moved": ("POST", "/", "/hint", _nothing, {"nonidempotent_max_idle_s": 0}),
    "POST": ("POST", "/", "/", _nothing, {}),
    "GET": ("GET", "/", "/", _nothing, {}),
    "GET, new socket": ("GET", "/", "/", _close_connection, {}),
    "GET, closed while idle": ("GET", "/", "/", _close_idle, {}),
    "POST, closed after the checkout": ("POST", "/", "/", _close_after_checkout, {}),
}


def injected(name: str) -> None:
    """Inject an exception at each line of ours in turn, during one request of a scene.

    Prints how many were injected, and where one did not reach the caller, or broke the pool.
    """
    unraisable: List[Any] = []
    sys.unraisablehook = lambda args: unraisable.append(args.exc_value)
    serial = itertools.count()
    method, path, before, act, settings = SCENES[name]
    lost: List[str] = []
    broken: List[str] = []
    stalepool.install(**settings)
    with FaultServer(Script()) as server, urllib3.HTTPConnectionPool(
        "127.0.0.1", server.port, maxsize=1, retries=False, timeout=20.0
    ) as pool:
        place = None
        for line in itertools.count():
            try:  # whatever has happened to it, the pool goes on
                for _ in range(2):
                    assert pool.request("GET", before).status == 200
            except Exception as error:
                broken.append("%s: %r" % (place, error))
            act(server, pool)
            wanted = path % next(serial) if "%" in path else path
            saw: Any = None
            with Injector(line) as injector:
                try:
                    saw = pool.request(method, wanted, body=b"1" if method == "POST" else None)
                except BaseException as error:
                    saw = error
            place = injector.place
            if place is None:
                break
            if not isinstance(saw, Foreign):
                ignored = any(isinstance(error, Foreign) for error in unraisable)
                lost.append("%s: %r%s" % (place, saw, ", ignored" if ignored else ""))
            vars(pool).pop("_validate_conn", None)
            unraisable.clear()
    print(json.dumps({"injected": line, "lost": lost, "broken": broken}))
