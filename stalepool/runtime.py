"""The state of the process: the settings that install() put in force, and the number of forks.

An installation is one object, replaced and never changed. A module that keeps what depends on it
registers a function with :func:`on_change`, so that the hot path need not compare anything.
"""

from __future__ import annotations

import os
from typing import Callable, List, Optional

from stalepool import fallback, stats
from stalepool.settings import Settings


class Installation:
    """The settings in force; the hot path reads those that are attributes here."""

    __slots__ = ("checks_before_send", "is_audit", "settings", "silence_s")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.is_audit = settings.mode == "audit"
        self.checks_before_send = settings.presend_check
        self.silence_s = None if self.is_audit else settings.silence_s


#: None while nothing is installed: patched functions that remain are pass-throughs
current: Optional[Installation] = None

#: number of forks from the first process to this one
fork_generation = 0

_on_change: List[Callable[[], None]] = []


def on_change(forget: Callable[[], None]) -> None:
    """Register a function to be called after each install, uninstall and fork."""
    _on_change.append(forget)


def start(settings: Settings) -> None:
    """Put settings in force; the same ones again change nothing."""
    if current is None or current.settings != settings:
        _replace(Installation(settings))


def stop() -> None:
    """Make all patched functions pass-throughs."""
    _replace(None)


def _replace(installation: Optional[Installation]) -> None:
    global current
    current = installation
    for forget in _on_change:
        forget()


def _after_fork_in_child() -> None:
    global fork_generation
    fork_generation += 1
    stats.forget_counts()
    fallback.forget()
    _replace(current)


if hasattr(os, "register_at_fork"):
    # a callback at the fork itself: no getpid() on the hot path
    os.register_at_fork(after_in_child=_after_fork_in_child)
