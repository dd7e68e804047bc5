"""A warning about keystoneauth1's ``connect_retries``, which is not changed: docs/replay.rst."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any, Callable, Mapping, Tuple

from stalepool import fallback, runtime

_met = itertools.count()


def make_request(original: Callable[..., Any], module: ModuleType) -> Any:
    """Wrap ``keystoneauth1.session.Session.request``; the wrapper changes nothing.

    It is not on the hot path, so wrapt does it, and keeps binding and introspection right.
    """
    import wrapt  # 18 ms, most of it for asyncio: only where there is a keystoneauth1

    def request(
        wrapped: Callable[..., Any], instance: Any, args: Tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        retries = kwargs.get("connect_retries")
        if retries is None:
            retries = getattr(instance, "_connect_retries", 0)
        if retries and runtime.current is not None and next(_met) == 0:
            text = (
                "a keystoneauth1 session has connect_retries=%s: a POST whose answer is lost will "
                "be sent, and processed, again; with stalepool it can be 0 if outages are short"
            )
            fallback.log("keystone", "WARNING", text, retries)
        return wrapped(*args, **kwargs)

    class Bound(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]
        """Pickled and copied as a method is, which wrapt refuses."""

        __copy__: Any = None  # so that copying asks __reduce_ex__, as for a method
        __deepcopy__: Any = None

        def __reduce_ex__(self, protocol: Any) -> Any:
            return getattr, (getattr(self, "__self__", module.Session), self.__name__)

    class Wrapper(wrapt.FunctionWrapper):  # type: ignore[type-arg]
        __bound_function_wrapper__ = Bound

    return Wrapper(original, request)
