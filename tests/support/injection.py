"""Exceptions raised in the midst of a request, at each line of ours, as by a signal handler.

Run in a process of its own, which prints what became of the exceptions as JSON.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
from typing import Any, Callable, Dict, Iterator, List, Tuple

import stalepool
from pools import end_while_idle, let_pass, pooled_connection, serving
from replay_tools import after_checkout, have
from stalepool_testing import CloseAfter, FaultServer, ProcessThenClose, Respond

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


@contextlib.contextmanager
def injecting(line: int) -> Iterator[List[str]]:
    """Raise at the n-th line of ours that this thread executes, once; gives the place, if any."""
    lines, places = itertools.count(), []  # type: Iterator[int], List[str]

    def enter_frame(frame: Any, event: str, argument: Any) -> Any:
        return at_line if frame.f_code.co_filename.startswith(_OURS) else None

    def at_line(frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and not places and next(lines) == line:
            where = os.path.relpath(frame.f_code.co_filename, _OURS)
            places.append("%s:%d %s" % (where, frame.f_lineno, frame.f_code.co_name))
            raise Foreign
        return at_line

    sys.settrace(enter_frame)
    try:
        yield places
    finally:
        sys.settrace(None)


def _close_after_checkout(server: FaultServer, pool: Any) -> None:
    """The FIN arrives between the look at checkout and the first byte."""
    after_checkout(pool, have(server, CloseAfter(0)))


#: name -> (method, path, path of the answer before, what is done meanwhile, settings)
SCENES: Dict[str, Tuple[str, str, str, Callable[[FaultServer, Any], None], Dict[str, Any]]] = {
    "GET, full check": ("GET", "/", "/", lambda _, pool: let_pass(pool, 10), {}),
    "GET, sent again": ("GET", "/dies/%d", "/", lambda *_: None, {}),
    "POST, its answer lost": ("POST", "/dies/%d", "/", lambda *_: None, {}),
    "POST, moved": ("POST", "/", "/hint", lambda *_: None, {"nonidempotent_max_idle_s": 0}),
    "POST": ("POST", "/", "/", lambda *_: None, {}),
    "GET": ("GET", "/", "/", lambda *_: None, {}),
    "GET, new socket": ("GET", "/", "/", lambda _, pool: pooled_connection(pool).close(), {}),
    "GET, closed while idle": ("GET", "/", "/", end_while_idle, {}),
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
    with serving(Script()) as (server, pool):
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
            with injecting(line) as places:
                try:
                    saw = pool.request(method, wanted, body=b"1" if method == "POST" else None)
                except BaseException as error:
                    saw = error
            if not places:
                break
            (place,) = places
            if not isinstance(saw, Foreign):
                ignored = any(isinstance(error, Foreign) for error in unraisable)
                lost.append("%s: %r%s" % (place, saw, ", ignored" if ignored else ""))
            vars(pool).pop("_validate_conn", None)
            unraisable.clear()
    print(json.dumps({"injected": line, "lost": lost, "broken": broken}))
