"""Fallbacks: something was not as expected, so urllib3 handles the request alone.

Each is counted, and the first of each reason is logged. All log lines pass through :func:`log`.
"""

from __future__ import annotations

import functools
import logging
import sys
import traceback
from typing import Any, Callable, Dict, Optional, Set, Tuple

from stalepool.clock import monotonic
from stalepool.foreign import is_foreign, passed_through
from stalepool.stats import Counter

_F = Callable[..., Any]

#: all reasons, with their meaning
REASONS = {
    "check_failed": "a check failed; urllib3's own check decides",
    "unknown_connection": "a connection or socket of an unknown class; urllib3's own check decides",
    "requests_unseen": "a subclass or wrapper does not call HTTPConnection.send; no replays for it",
    "send_failed": "a request could not be prepared; urllib3 sends it alone",
    "answer_failed": "waiting for an answer failed; urllib3 reads the answer alone",
    "keepalive_failed": "TCP keepalive could not be armed, or no probe be sent",
    "connect_failed": "unexpected error around a connect; a refused one is not tried again",
    "fresh_socket_failed": "unexpected error while a second socket was opened; the old one stays",
    "replay_failed": "unexpected error while a replay was made; the caller gets the first error",
    "patch_missing": "urllib3 does not look as expected; a patch was left out",
    "wrapped_by_others": "somebody has wrapped a patched function; ours stays as a pass-through",
    "metrics_failed": "metrics could not be written",
    "hook_failed": "the import hook failed; urllib3 is not patched",
    "status_failed": "the status file could not be written; stalepool status is incomplete",
}

_counts: Dict[str, Counter] = {}
_logged: Set[str] = set()
#: reason -> the detail of the first fallback
first_details: Dict[str, str] = {}
LINES_A_MINUTE = 10  #: the most lines of one message, above DEBUG
#: message -> (when its minute began, lines in it)
_lines: Dict[str, Tuple[float, int]] = {}
_top = logging.getLogger("stalepool")
#: packages whose functions are the first ones in a thread, green or not; and HTTP clients
_START_THREADS = ("threading", "concurrent", "eventlet", "gevent")
_CLIENTS = ("requests", "botocore", "urllib3", "http", "stalepool")
_ABOUT = ("checkout", "connect", "fallback", "keystone", "move", "replay", "status")
_loggers = {about: logging.getLogger("stalepool." + about) for about in _ABOUT}


def guarded(reason: str, default: Any = None, catches_foreign: bool = False) -> Callable[[_F], _F]:
    """Decorator: where the function raises, count a fallback and return ``default``.

    What others have raised passes, see :mod:`stalepool.foreign`, as does what is no Exception:
    ``KeyboardInterrupt``, ``eventlet.Timeout``.

    :param reason: one of :data:`REASONS`.
    :param catches_foreign: foreign ones are caught, too: an audit hook's veto looks like one.
    """

    def guard(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            try:
                return function(*args)
            except Exception as error:
                if not catches_foreign and is_foreign(error, *args[:1]):
                    raise
                fall_back(reason, repr(error), stacklevel=3)
                return default

        return call

    return guard


def fall_back(reason: str, detail: object, stacklevel: int = 2, level: str = "WARNING") -> None:
    """Count a fallback to urllib3, and log the first of each reason, and what was not as expected.

    May yield inside a log handler; it is not called for a healthy request. Raises nothing.
    """
    if _counts.setdefault(reason, Counter()).tick() == 0:
        first_details[reason] = str(detail)
    if reason not in _logged:
        args = (REASONS[reason], reason, detail)
        if log("fallback", level, "%s (%s): %s", *args, stacklevel=stacklevel + 1):
            _logged.add(reason)


def log(about: str, level_name: str, message: str, *args: Any, stacklevel: int = 2) -> bool:
    """Log, but not inside a log handler: one that posts would recurse, or wait for itself.

    Above DEBUG at most :data:`LINES_A_MINUTE` lines of one message are written; the next one says
    how many were left out.

    :param message: a literal: lines are counted by it.
    :param stacklevel: the frame whose place the line shows: 2 is the caller's.
    :returns: False in a log handler's thread: another one may log it.
    """
    logger, level = _loggers[about], getattr(logging, level_name)
    # dictConfig() disables the loggers that it does not name; to silence one, set its level
    logger.disabled = False
    try:
        if sys.is_finalizing() or not _is_wanted(logger, level):
            return True
        if _is_of_a_log_handler(logger):
            return False
        left_out = _lines_left_out(message) if level > logging.DEBUG else 0
        if left_out:
            message, args = message + " (%d such lines were left out before)", (*args, left_out)
        if left_out is not None:
            logger.log(level, message, *args, stacklevel=stacklevel)
    except Exception as error:  # a broken handler or filter must not cost the caller a request
        if is_foreign(error) and "logging" not in passed_through(error):  # raised by no handler
            raise
    return True


def _is_of_a_log_handler(logger: Any) -> bool:
    """Tell whether a log handler is at work here, or posts here in a thread of its package.

    Such a thread may hold the lock for which its handler waits. By packages, outermost first, it
    has a stack such as: threading, threading, loki, loki, requests, urllib3, http, stalepool. loki
    has started it, and posts; and a handler of the logger, or a base of its class, is loki's.
    """
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_stack(None)]
    # not all of loguru: a whole service may run under its logger.catch()
    if not {"logging", "logging.handlers", "loguru._handler"}.isdisjoint(modules):
        return True
    packages = [module.partition(".")[0] for module in reversed(modules)]
    if packages[0] not in _START_THREADS:  # the main thread, or one of a web server's
        return False
    started_by = next(package for package in packages if package not in _START_THREADS)
    posts = next(outer for outer, inner in zip(packages, packages[1:]) if inner in _CLIENTS)
    of_queues = getattr(sys.modules.get("logging.handlers"), "QueueHandler", logging.NullHandler)
    handlers: Any = []
    while logger is not None:
        handlers += logger.handlers
        logger = logger.parent if logger.propagate else None
    post_nothing = (logging.StreamHandler, logging.NullHandler, of_queues)
    posting = [type(each) for each in handlers if not isinstance(each, post_nothing)]
    return {started_by, posts} <= {cls.__module__.partition(".")[0] for cls in posting}


def _is_wanted(logger: logging.Logger, level: int) -> bool:
    """Tell whether a line is wanted; for DEBUG the level has to be set on a logger of ours.

    Otherwise a root handler at DEBUG that posts by urllib3 would cause a record with each post.
    """
    is_enabled = logger.isEnabledFor(level)
    if not is_enabled or level > logging.INFO or logger.level or _top.level:
        return is_enabled
    # pip prints INFO on stdout, among its JSON
    is_in_pip = any(type(h).__module__.startswith("pip.") for h in logging.root.handlers)
    return level > logging.DEBUG and not is_in_pip


def _lines_left_out(message: str) -> Optional[int]:
    """Return how many lines were left out since the last one; None: leave out this one, too."""
    now = monotonic()
    began, count = _lines.get(message, (now, 0))
    if now - began < 60:
        _lines[message] = (began, count + 1)
        return 0 if count < LINES_A_MINUTE else None
    _lines[message] = (now, 1)
    return max(0, count - LINES_A_MINUTE)


def counts() -> Dict[str, int]:
    """Return how often each reason occurred; only those that did."""
    return {reason: counter.value for reason, counter in sorted(_counts.copy().items())}


def forget() -> None:
    """Count from zero, as a forked child does, which logs its own fallbacks."""
    for each in (_counts, _logged, _lines):
        each.clear()
