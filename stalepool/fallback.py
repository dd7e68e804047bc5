"""Falling back to urllib3: something was not as expected, so urllib3 goes on by itself.

Each reason is counted every time and logged at WARNING the first time in a process. A log handler
may itself post through urllib3, so a log call made from inside one is dropped, not nested.
"""

from __future__ import annotations

import _socket
import contextvars
import functools
import logging
import os
from typing import Any, Callable, Dict, NoReturn, Optional

from stalepool.stats import Counter

#: the reasons there are: a closed set, so that counting them takes bounded memory
REASONS = {
    "check_failed": "a check failed, urllib3's own check decides",
    "unknown_connection": "a connection of unknown kind, urllib3's own check decides",
    "requests_unseen": "a subclass or wrapper sends past HTTPConnection.send, nothing is replayed",
    "send_failed": "a request could not be prepared, urllib3 sends it by itself",
    "answer_failed": "an answer could not be looked after, urllib3 reads it by itself",
    "keepalive_failed": "TCP keepalive could not be armed",
    "connect_failed": "a refused connect could not be looked after, its error is the caller's",
    "fresh_socket_failed": "a second socket could not be opened, the old one stays",
    "replay_failed": "a replay could not be made, the first error is the caller's",
    "patch_missing": "urllib3 does not look as expected, a patch was left out",
    "wrapped_by_others": "somebody wrapped a patched function, ours stays as a pass-through",
    "metrics_failed": "metrics could not be written, the service goes on",
    "hook_failed": "the import hook could not do its work, urllib3 is left as it is",
}

#: packages whose exceptions our own calls raise; any other code that raises inside one of our
#: blocks was called by the interpreter: a signal handler, a timer, a tracer
_CALLED_BY_US = frozenset(
    (
        *("stalepool", "urllib3", "http", "email", "socket", "ssl", "select", "struct", "copy"),
        *("weakref", "functools", "contextvars", "logging", "eventlet", "gevent", "OpenSSL"),
        *("wrapt", "inspect", "importlib", "socks", "greenlet", "pytest_socket"),
    )
)

_counts = {reason: Counter() for reason in REASONS}
_is_logging = contextvars.ContextVar("stalepool_is_logging", default=False)
_logger = logging.getLogger("stalepool.fallback")

# a root logger at DEBUG whose handler posts each record would be fed by what its own posts cause:
# our DEBUG lines are for who asks for them by name
if logging.getLogger("stalepool").level == logging.NOTSET:
    logging.getLogger("stalepool").setLevel(logging.INFO)


def guarded(reason: str, default: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: where the function raises, count a fallback and return ``default``.

    The one place in this package that catches every exception. One that is not of our making
    passes through, see :func:`is_foreign`; so do ``KeyboardInterrupt``, ``eventlet.Timeout`` and
    whatever else is no ``Exception``.

    :param reason: one of :data:`REASONS`.
    """

    def guard(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            try:
                return function(*args)
            except Exception as error:
                if is_foreign(error):
                    raise
                fall_back(reason, repr(error))
                return default

        return call

    return guard


def is_foreign(error: BaseException) -> bool:
    """Tell whether an exception was raised by code that we did not call.

    Its class, or its innermost frame, is neither a builtin, nor ours, nor of what we call; or a
    timer of eventlet's threw it into a green thread that waits; or it is a timeout: nothing that is
    guarded waits, but for opening a socket, which catches its own. Other builtins that a signal
    handler raises cannot be told from ours, so blocks stay small.
    """
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return False
    module = str(innermost.tb_frame.f_globals.get("__name__"))
    if module.startswith("eventlet.hubs.") or is_timeout(error):
        return True
    if type(error).__module__ == "builtins":
        return False
    return not (_is_called_by_us(type(error).__module__) and _is_called_by_us(module))


def is_timeout(error: Optional[BaseException]) -> bool:
    """Tell whether a limit ran out: one set on a socket, or a timer's. ETIMEDOUT has an errno."""
    return isinstance(error, (TimeoutError, _socket.timeout)) and error.errno is None


def _is_called_by_us(module: str) -> bool:
    return module.partition(".")[0] in _CALLED_BY_US or ".urllib3." in module


def raise_again(error: BaseException) -> NoReturn:
    """Raise an exception that was caught, as it was: a plain ``raise`` would change its context.

    urllib3 1.26 sends and reads inside an ``except`` clause of its own.
    """
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error  # its traceback holds this frame


def fall_back(reason: str, detail: object) -> None:
    """Count that something was left to urllib3, and log why, once a process and reason.

    May yield inside a log handler, so it is never called between a check that found a connection
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
    except Exception as error:  # a broken handler or filter must not cost the caller a request
        if is_foreign(error) and not _is_of_a_handler(error):
            raise
    finally:
        _is_logging.reset(token)


def _is_of_a_handler(error: BaseException) -> bool:
    """Tell whether an exception came out of logging, whoever wrote the handler."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__") == "logging":
            return True
        frame = frame.tb_next
    return False


def counts() -> Dict[str, int]:
    """Return how often each reason occurred; only those that did."""
    return {reason: counter.value for reason, counter in _counts.items() if counter.value}


def forget() -> None:
    """Start again from zero, as a forked child does: what it meets is its own to say."""
    for reason in REASONS:
        _counts[reason] = Counter()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
