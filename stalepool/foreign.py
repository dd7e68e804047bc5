"""Exceptions that are foreign: raised by code that we did not call, so our blocks let them pass.

The interpreter runs such code anywhere: a signal handler, a timer of a green thread, a tracer.
"""

from __future__ import annotations

import _socket
import traceback
from typing import Any, FrozenSet, List, NoReturn, Optional

#: packages whose exceptions our own calls raise
_CALLED_BY_US = frozenset(
    (
        *("stalepool", "urllib3", "http", "email", "socket", "ssl", "select", "struct"),
        *("weakref", "functools", "logging", "eventlet", "gevent", "OpenSSL"),
        *("wrapt", "inspect", "importlib", "socks", "greenlet", "pytest_socket", "beartype"),
    )
)


def is_foreign(error: BaseException, called: Any = None) -> bool:
    """Tell whether an exception was raised by code that we did not call.

    Three kinds are foreign: timeouts, since guarded code waits only to open a socket, and catches
    its own; what a timer raised in a waiting green thread; exceptions other than builtins
    whose class or innermost frame is in no package that we call. A builtin that a signal handler
    raises cannot be told from ours, so guarded blocks are small.

    :param called: an object that we call, such as a connection: its class is not foreign.
    """
    module = _raised_in(error)
    if not module:
        return False
    if module.startswith(("eventlet.hubs.", "gevent._g")) or is_timeout(error):
        return True
    if type(error).__module__ == "builtins":
        return False
    return not all(map(_is_called_by_us, {type(error).__module__, module} - _modules_of(called)))


def _raised_in(error: BaseException) -> str:
    """Return the module whose code raised, or called C code that raised; empty if not raised."""
    return (passed_through(error) or [""])[-1]


def passed_through(error: BaseException) -> List[str]:
    """List the modules of an exception's frames; the last one raised it."""
    frames = traceback.walk_tb(error.__traceback__)
    return [str(frame.f_globals.get("__name__")) for frame, _ in frames]


def _modules_of(called: Any) -> FrozenSet[str]:
    return frozenset(cls.__module__ for cls in type(called).__mro__)


def is_timeout(error: Optional[BaseException]) -> bool:
    """Tell whether it is a timeout of a socket or a timer. ETIMEDOUT is not: it has an errno."""
    # a TLS socket of eventlet 0.33 raises an SSLError
    of_eventlet = isinstance(error, OSError) and error.args == ("timed out",)
    return of_eventlet or (isinstance(error, (TimeoutError, _socket.timeout)) and not error.errno)


def is_in_a_sockets_words(error: Optional[BaseException]) -> bool:
    """Tell whether it is a timeout with a socket's text, which a signal handler may use, too."""
    return is_timeout(error) and "timed out" in str(error)


def is_a_sockets_timeout(error: Optional[BaseException], conn: Any = None) -> bool:
    """Tell whether it is the timeout of a socket, and not a signal handler's or a timer's.

    Judged by its text, and by the module that raised it: eventlet's hub raises both kinds.

    :param conn: a connection whose class may raise timeouts of its own.
    """
    if error is None or not is_in_a_sockets_words(error):
        return False
    module = _raised_in(error)
    return not module or _is_called_by_us(module) or module in _modules_of(conn)


def _is_called_by_us(module: str) -> bool:
    return module.partition(".")[0] in _CALLED_BY_US or ".urllib3." in module


def raise_again(error: BaseException) -> NoReturn:
    """Raise a caught exception with its own context, which a plain ``raise`` would change.

    urllib3 1.26 sends and reads inside an ``except`` clause of its own.
    """
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error  # its traceback holds this frame
