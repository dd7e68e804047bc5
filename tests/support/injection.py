"""An exception of somebody else's, at each line of ours in turn."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from typing import Any, Callable, Iterator, List

import stalepool

_OURS = os.path.dirname(os.path.abspath(stalepool.__file__)) + os.sep


class Foreign(Exception):
    """Raised by code that the request did not call."""


def raise_foreign(*_: Any) -> None:
    raise Foreign


@contextlib.contextmanager
def injecting(line: int, act: Callable[[], None] = raise_foreign) -> Iterator[List[str]]:
    """Act at the n-th line of ours that this thread executes, once; gives the place, if any."""
    lines, places = itertools.count(), []  # type: Any, List[str]

    def enter_frame(frame: Any, event: str, argument: Any) -> Any:
        return at_line if frame.f_code.co_filename.startswith(_OURS) else None

    def at_line(frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and not places and next(lines) == line:
            where = os.path.relpath(frame.f_code.co_filename, _OURS)
            places.append("%s:%d %s" % (where, frame.f_lineno, frame.f_code.co_name))
            act()
        return at_line

    sys.settrace(enter_frame)
    try:
        yield places
    finally:
        sys.settrace(None)
