"""Exceptions that are foreign: raised by code that we did not call, so our blocks let them pass.

The interpreter runs such code anywhere: a signal handler, a timer of a green thread, a tracer.
"""

from __future__ import annotations

import _socket
import traceback
from typing import Any, Iterable, List, NoReturn, Optional

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

    Three kinds are foreign: timeouts, since guarded code waits only to open a socket, and catches
    its own; what a timer raised in a waiting green thread; and what is no builtin, and has its
    class or its innermost frame in no package that we call. A signal handler's builtin cannot be
    told from ours, so guarded blocks are small.

    :param called: an object that we call, such as a connection: its class is not foreign.
    """
    modules, of_class = passed_through(error), type(error).__module__
    if not modules:
        return False
    if modules[-1].startswith(("eventlet.hubs.", "gevent._g")) or is_timeout(error):
        return True
    return of_class != "builtins" and not _is_called_by_us({of_class, modules[-1]}, called)


def is_a_handlers(error: BaseException) -> bool:
    """Tell whether a signal handler raised it while a C function ran that the caller has called.

    That has no frame of its own, and its timeouts are not foreign.
    """
    raised = error.__traceback__
    return raised is not None and raised.tb_next is not None and is_foreign(error)


def passed_through(error: BaseException) -> List[str]:
    """List the modules of an exception's frames; the last one raised it, or called C code."""
    frames = traceback.walk_tb(error.__traceback__)
    return [str(frame.f_globals.get("__name__")) for frame, _ in frames]


def _is_called_by_us(modules: Iterable[str], called: Any) -> bool:
    of_called = {cls.__module__ for cls in type(called).__mro__}
    return all(
        name in of_called or name.partition(".")[0] in _CALLED_BY_US or ".urllib3." in name
        for name in modules
    )


def is_timeout(error: Optional[BaseException]) -> bool:
    """Tell whether it is a timeout of a socket or a timer. ETIMEDOUT is not: it has an errno."""
    # a TLS socket of eventlet 0.33 raises an SSLError
    of_eventlet = isinstance(error, OSError) and error.args == (TIMED_OUT,)
    return of_eventlet or (isinstance(error, (TimeoutError, _socket.timeout)) and not error.errno)


def is_socket_timeout(error: BaseException, conn: Any) -> bool:
    """Tell whether what looks like a timeout of a socket was raised by a module that we call.

    :param conn: a connection whose class may raise timeouts of its own.
    """
    return _is_called_by_us(passed_through(error)[-1:], conn)


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
