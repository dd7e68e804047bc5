"""Standing aside: something was not as expected, urllib3 goes on by itself, and we say so once.

Every reason is counted each time and logged at WARNING the first time in a process. A log handler
may itself post through urllib3, so a log call made from inside one is dropped, not nested.
"""

from __future__ import annotations

import contextvars
import logging
import os
from typing import Any, Dict

from stalepool.counting import Counter

#: the reasons there are: a closed set, so that counting them takes bounded memory
REASONS = {
    "check_failed": "the look at a connection failed, urllib3's own check decides",
    "unknown_connection": "a connection of unknown kind, urllib3's own check decides",
    "request_failed": "a request could not be looked after, urllib3 handles it by itself",
    "keepalive_failed": "TCP keepalive could not be armed",
    "seam_missing": "urllib3 does not look as expected, a seam was left alone",
    "wrapped_by_others": "somebody wrapped on top of a seam, it stays as a pass-through",
    "hook_failed": "the import hook could not do its work, urllib3 is left as it is",
}

_counts = {reason: Counter() for reason in REASONS}
_is_logging = contextvars.ContextVar("stalepool_is_logging", default=False)
_logger = logging.getLogger(__name__)


def stand_aside(reason: str, detail: object) -> None:
    """Count that the shim left something to urllib3, and log why once a process and reason.

    May yield inside a log handler, so it is never called between a look that found a connection
    alive and its request. Raises nothing.

    :param reason: one of :data:`REASONS`.
    :param detail: what was met, for the log line.
    """
    if _counts[reason].tick() == 0:
        log(_logger, logging.WARNING, "%s (%s): %s", REASONS[reason], reason, detail)


def log(logger: logging.Logger, level: int, message: str, *args: Any) -> None:
    """Log, unless from inside a log call of ours: a handler that posts would recurse.

    The mark is a context variable, of which every thread and every greenlet has its own.
    """
    if _is_logging.get() or not logger.isEnabledFor(level):
        return
    token = _is_logging.set(True)
    try:
        logger.log(level, message, *args)
    except Exception:  # a broken handler or filter must not cost the caller a request
        pass
    finally:
        _is_logging.reset(token)


def counts() -> Dict[str, int]:
    """How often each reason occurred; only those that did."""
    return {reason: counter.value for reason, counter in _counts.items() if counter.value}


def forget() -> None:
    """Start again from zero, as a forked child does: what it meets is its own to say."""
    for reason in REASONS:
        _counts[reason] = Counter()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
