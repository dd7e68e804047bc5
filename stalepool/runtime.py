"""The state of the process: the settings that install() put in force, and the number of forks."""

from __future__ import annotations

import os
from typing import Callable, List, Optional

from stalepool import fallback, stats
from stalepool.settings import Settings

#: the settings in force; None while nothing is installed: patched functions are pass-throughs
current: Optional[Settings] = None

fork_generation = 0  #: number of forks from the first process to this one

_on_change: List[Callable[[], None]] = []


def on_change(callback: Callable[[], None]) -> None:
    """Register a function to be called when the settings in force change, and after each fork."""
    _on_change.append(callback)


def put_in_force(settings: Optional[Settings]) -> None:
    """Put settings in force, None for pass-throughs; the same ones again change nothing."""
    global current
    if settings != current:
        current = settings
        _call_back()


def _call_back() -> None:
    for callback in _on_change:
        callback()


def _after_fork_in_child() -> None:
    global fork_generation
    fork_generation += 1
    stats.forget_counts()
    fallback.forget()
    _call_back()


# a callback at the fork itself: no getpid() on the hot path; there are platforms without fork()
register_at_fork: Callable[..., None] = getattr(os, "register_at_fork", lambda **_: None)
register_at_fork(after_in_child=_after_fork_in_child)
