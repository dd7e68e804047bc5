"""The class of a connection's responses: an Answer, made from the class that stock would take.

Replaces ``HTTPConnection.response_class``; what stock would take is looked up at each access.
"""

from __future__ import annotations

import functools
from abc import ABCMeta
from typing import Any, Callable

from stalepool.connection.answer import Answer

MOST_CLASSES = 64  # response classes that are kept; somebody may set a new one for each test


def make_response_class(original: Callable[[Any, Any], Any], module: Any) -> Any:
    """Return the new attribute; ``original(instance, owner)`` returns the class it had."""
    class_of = functools.lru_cache(MOST_CLASSES)(_class_of)  # goes with this copy of urllib3

    class ResponseClass:
        """A descriptor without ``__set__``, so that an instance may have a class of its own."""

        def __get__(self, conn: Any, owner: Any = None) -> Any:
            base = original(conn, owner)
            if type(base) is ABCMeta:
                return class_of(base)
            if issubclass(type(base), type):
                return base
            return functools.partial(_made_by, base, class_of)  # a function, or a class's wrapper

    return ResponseClass()


def _class_of(base: Any) -> Any:
    """Return a class that is the base and an :class:`Answer`.

    The base itself if none may be made of it: then urllib3 reads the answer alone.
    """
    mro = base.__mro__
    names = ["%s.%s" % (each.__module__, each.__qualname__) for each in mro]
    is_a_response = any(name.endswith("http.client.HTTPResponse") for name in names)
    is_told = any("__init_subclass__" in vars(each) for each in mro[:-1])  # of each subclass
    if not is_a_response or is_told or Answer in mro:
        return base
    namespace = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, (Answer, base), namespace)


def _made_by(make: Any, class_of: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Any:
    """Call what somebody has put in place of the class, and make its response an Answer."""
    response = make(*args, **kwargs)
    base = type(response)
    cls = class_of(base) if type(base) is ABCMeta else base
    if cls is not base:
        object.__setattr__(response, "__class__", cls)
    return response


def make_replayed(original: Any, module: Any) -> Any:
    """Return the descriptor that urllib3's response gets: it asks http.client's response inside."""

    class Replayed:
        def __get__(self, response: Any, owner: Any = None) -> bool:
            made_of = getattr(response, "_original_response", None)
            return bool(getattr(made_of, "stalepool_replayed", False))

    return Replayed()
