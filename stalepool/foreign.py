"""Exceptions that are foreign: raised by code that we did not call, so our blocks let them pass.

The interpreter runs such code anywhere: a signal handler, a timer of a green thread, a tracer.
"""

from __future__ import annotations

import _socket
import sys
import traceback
from typing import Any, List, NoReturn, Optional

from stalepool.signal_handlers import is_a_handlers

TIMED_OUT = "timed out"  #: the words of a socket's timeout
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

    Three kinds are foreign: a deadline; a timeout, since guarded code waits only to open a socket,
    and catches its own; and an exception that is no builtin, if we do not call the package of its
    class, or that of its innermost frame.

    :param called: an object that we call, such as a connection: its class is not foreign.
    """
    modules, of_class = passed_through(error), type(error).__module__
    if not modules:
        return False
    if is_timeout(error) or is_a_deadline(error):
        return True
    of_called = {cls.__module__ for cls in type(called).__mro__}
    return of_class != "builtins" and not all(
        name in of_called or name.partition(".")[0] in _CALLED_BY_US or ".urllib3." in name
        for name in (of_class, modules[-1])
    )


def is_a_deadline(error: BaseException) -> bool:
    """Tell whether a signal handler raised it, or the timer of a waiting green thread."""
    modules = passed_through(error)
    is_a_timers = bool(modules) and modules[-1].startswith(("eventlet.hubs.", "gevent._g"))
    return is_a_timers or is_a_handlers(error)


def passed_through(error: BaseException) -> List[str]:
    """List the modules of an exception's frames; the last one raised it, or called C code."""
    frames = traceback.walk_tb(error.__traceback__)
    return [str(frame.f_globals.get("__name__")) for frame, _ in frames]


def is_timeout(error: Optional[BaseException]) -> bool:
    """Tell whether it is a timeout of a socket or a timer. ETIMEDOUT is not: it has an errno."""
    # a TLS socket of eventlet 0.33 raises an SSLError
    of_eventlet = isinstance(error, OSError) and error.args == (TIMED_OUT,)
    return of_eventlet or (isinstance(error, (TimeoutError, _socket.timeout)) and not error.errno)


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


def drop_frames(error: Optional[BaseException]) -> None:
    """Drop the traceback of an exception that goes no further, and so free what its caller has.

    Else only the collector would: eventlet's ``trampoline()``, and ``create_connection()`` of
    urllib3 1.26, have the exception that they raise in a local. And a response that is not freed
    keeps its connection from being used.

    Call it outside the ``except`` clause: then it goes on to the exceptions in whose handling this
    one was raised, up to one that the caller is handling.
    """
    handled = sys.exc_info()[1]
    while error is not None:
        BaseException.with_traceback(error, None)  # its class may refuse an assignment
        is_last = error is handled or error.__context__ is handled
        error = None if is_last else error.__context__
