"""Exceptions of signal handlers, which the interpreter may run between any two lines of ours."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal makes enums of all
import functools
import gc
import traceback
from types import BuiltinFunctionType, FunctionType, MethodType, WrapperDescriptorType
from typing import Any, List

LONGEST_CHAIN = 20  #: of partials and the like around a handler; one may hold itself


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
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(frame.f_code in known or _name_in(frame) in known for frame in frames)


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


def _name_in(frame: Any) -> str:
    # Cython puts module and class before the name
    return "%s.%s" % (frame.f_globals.get("__name__"), frame.f_code.co_name.rpartition(".")[2])
