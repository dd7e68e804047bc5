"""What is installed in this process now.

One object, replaced and never changed: the hot path tells by one identity comparison that nothing
has happened since it last looked at a connection: no uninstall, no other settings, no fork.
"""

from __future__ import annotations

import os
from typing import Optional

from stalepool import stats
from stalepool.settings import Settings


class Installation:
    """The settings in force."""

    __slots__ = ("is_audit", "looks_twice", "settings", "user_timeout_ms")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.is_audit = settings.mode == "audit"
        self.looks_twice = settings.second_look
        #: in ms; lowered for callers in a hurry
        self.user_timeout_ms = int((settings.user_timeout_s or 0) * 1000)


#: None while nothing is installed: what is still wrapped passes through
current: Optional[Installation] = None

#: how many forks lie between the first process and this one
fork_generation = 0


def start(settings: Settings) -> None:
    """Put settings in force; the same ones again change nothing."""
    global current
    if current is None or current.settings != settings:
        current = Installation(settings)


def stop() -> None:
    global current
    current = None


def _after_fork_in_child() -> None:
    global current, fork_generation
    fork_generation += 1
    if current is not None:
        current = Installation(current.settings)
    stats.forget()


if hasattr(os, "register_at_fork"):
    # a callback at the fork itself: no getpid() on the hot path
    os.register_at_fork(after_in_child=_after_fork_in_child)
