"""Exceptions that are foreign: raised by code that we did not call, so our blocks let them pass.

The interpreter runs such code anywhere: a signal handler, a timer of a green thread, a tracer.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal makes enums of all
import _socket
import functools
import gc
import sys
import traceback
from types import BuiltinFunctionType, FunctionType, MethodType, WrapperDescriptorType
from typing import Any, List, NoReturn, Optional

LONGEST_CHAIN = 20  #: of partials and the like around a signal handler; one may hold itself
TIMED_OUT = "timed out"  #: the words of a socket's timeout
#: packages whose exceptions our own calls raise
_CALLED_BY_US = (
    *("stalepool", "urllib3", "http", "email", "socket", "ssl", "select", "struct"),
    *("weakref", "functools", "logging", "eventlet", "gevent", "OpenSSL"),
    *("wrapt", "inspect", "importlib", "socks", "greenlet", "pytest_socket", "beartype"),
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


def is_a_handlers(error: BaseException) -> bool:
    """Tell whether it was raised in a signal handler, as those are set now.

    Each is known by the function that a call of it runs. No code of theirs is run to find that.
    """
    if not _runs_handlers():
        return False
    handlers = [_signal.getsignal(number) for number in _signal.valid_signals()]
    known = {place for handler in handlers for place in _places_of(handler)}
    if not known:  # as in most processes: a look at code is an audit event, and may be vetoed
        return False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        # Cython puts module and class before the name
        name = "%s.%s" % (frame.f_globals.get("__name__"), frame.f_code.co_name.rpartition(".")[2])
        if frame.f_code in known or name in known:
            return True
    return False


def _runs_handlers() -> bool:
    """Tell whether this is the thread, and the interpreter, that runs signal handlers.

    In another interpreter even a reference to a handler may crash the process (measured).
    """
    try:
        _signal.signal(_signal.SIGTERM, None)  # always refused: None is no handler
    except (TypeError, ValueError) as error:
        if len(list(traceback.walk_tb(error.__traceback__))) > 1:
            raise  # a handler's, before Python 3.10
        if isinstance(error, ValueError):
            return False
    return True


def _places_of(handler: Any) -> List[Any]:
    """Return the code that a call runs; for Cython's a name, since its frames have other codes.

    For a wrapper in C, such as wrapt's, it is the code of each function that the wrapper holds.
    """
    for _ in range(LONGEST_CHAIN):
        kind = type(handler)
        if kind is FunctionType:
            return [handler.__code__]
        if kind.__name__ == "cython_function_or_method":
            return ["%s.%s" % (handler.__module__, handler.__name__)]
        if issubclass(kind, functools.partial):
            handler = functools.partial.func.__get__(handler)
        elif kind in (MethodType, staticmethod, classmethod):
            handler = handler.__func__
        else:
            calls = [vars(cls)["__call__"] for cls in kind.__mro__ if "__call__" in vars(cls)]
            if not calls or kind is BuiltinFunctionType:
                return []  # SIG_DFL, a handler of C code, or Python's own for SIGINT
            if type(calls[0]) is WrapperDescriptorType:
                held = gc.get_referents(handler)
                return [each.__code__ for each in held if type(each) is FunctionType]
            handler = calls[0]
    return []


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
