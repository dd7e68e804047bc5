"""What is wrapped where: the one table, and how it is applied to a copy of urllib3 and undone.

A process may hold several copies of urllib3 (eventlet's ``import_patched`` makes one, deleting it
from ``sys.modules`` another), so seams are found from the ``connectionpool`` module of each.
"""

from __future__ import annotations

import inspect
import weakref
from types import ModuleType
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

import wrapt

from stalepool import answer, aside, checkout, connect, keystone, routine, sending
from stalepool.copies import POOL, SESSION

Attribute = Callable[..., Any]


class Seam(NamedTuple):
    """One attribute that is replaced."""

    module: str
    owner: str  # name of a class in the module; empty for the module itself
    attribute: str
    parameters: Tuple[str, ...]  # the first ones it must have, or it is left alone
    wrap: Callable[[Attribute, ModuleType], Attribute]  # original, its module -> ours

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.module, self.owner, self.attribute)))


def _through_wrapt(make: Callable[[ModuleType], Attribute]) -> Callable[..., Attribute]:
    """For what is off the hot path: binding and introspection stay right whatever is wrapped."""

    def wrap(original: Attribute, module: ModuleType) -> Attribute:
        wrapper: Attribute = wrapt.FunctionWrapper(original, make(module))
        return wrapper

    return wrap


_CALL = ("self", "conn", "method", "url")

SEAMS = (
    Seam(POOL, "", "is_connection_dropped", ("conn",), checkout.make_check),
    Seam(POOL, "HTTPConnectionPool", "_make_request", _CALL, routine.make_make_request),
    Seam(POOL, "HTTPConnection", "send", ("self", "data"), sending.make_send),
    Seam(POOL, "HTTPConnection", "response_class", ("sock",), answer.make_response_class),
    Seam(POOL, "HTTPConnection", "_new_conn", ("self",), _through_wrapt(connect.make_new_conn)),
    Seam(SESSION, "Session", "request", ("self", "url"), _through_wrapt(keystone.make_request)),
)

#: the modules whose seams are wrapped. Weak, like the wrappers below, so that a copy of urllib3
#: that was thrown away can go
copies: weakref.WeakSet[ModuleType] = weakref.WeakSet()

#: the wrappers we made, by their identity: others copy attributes (functools.wraps) and equality
#: (wrapt)
_ours: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def apply(module: ModuleType) -> None:
    """Wrap the seams of one copy of a module. What is wrapped already stays as it is.

    A seam that does not look as expected is left alone, counted and reported; nothing is raised.

    :param module: fully imported; ``urllib3.connectionpool`` or another one of the table.
    """
    copies.add(module)
    for seam in seams_of(module):
        try:
            _apply_one(module, seam)
        except Exception as error:
            aside.stand_aside("seam_missing", "%s: %r" % (seam.name, error))


def remove() -> List[str]:
    """Put the originals back in every copy.

    :returns: the seams on which somebody else has wrapped: there ours stays, as a pass-through.
    """
    left = []
    for module in list(copies):
        for seam in seams_of(module):
            owner = _owner_of(module, seam)
            present = None if owner is None else _raw_attribute(owner, seam.attribute)
            if present is None or not _has_ours(present):
                continue
            if _is_ours(present):
                _put_back(owner, seam.attribute, present.__wrapped__)
            else:
                left.append(seam.name)
        copies.discard(module)
    if left:
        aside.stand_aside("wrapped_by_others", ", ".join(left))
    return left


def seams_of(module: ModuleType) -> List[Seam]:
    return [seam for seam in SEAMS if seam.module == module.__name__]


def _apply_one(module: ModuleType, seam: Seam) -> None:
    owner = _owner_of(module, seam)
    original = None if owner is None else _raw_attribute(owner, seam.attribute)
    if original is None:
        aside.stand_aside("seam_missing", "%s is not there" % seam.name)
    elif not _has_ours(original):
        names = tuple(inspect.signature(original).parameters)
        if names[: len(seam.parameters)] != seam.parameters:
            aside.stand_aside("seam_missing", "%s takes %s" % (seam.name, ", ".join(names)))
            return
        ours = seam.wrap(original, module)
        _ours[id(ours)] = ours
        setattr(owner, seam.attribute, ours)


def _owner_of(module: ModuleType, seam: Seam) -> Optional[Any]:
    return getattr(module, seam.owner, None) if seam.owner else module


def _raw_attribute(owner: Any, name: str) -> Optional[Any]:
    """What the module or class has under a name, unbound; a class may have inherited it."""
    for holder in getattr(owner, "__mro__", (owner,)):
        if name in vars(holder):
            return vars(holder)[name]
    return None


def _put_back(owner: Any, name: str, original: Attribute) -> None:
    for holder in getattr(owner, "__mro__", (owner,))[1:]:
        if vars(holder).get(name) is original:
            delattr(owner, name)  # it was inherited
            return
    setattr(owner, name, original)


def _is_ours(function: Any) -> bool:
    return _ours.get(id(function)) is function


def _has_ours(function: Any) -> bool:
    """Whether ours is in the chain of wrappers, or among the classes that one was made from."""
    if isinstance(function, type):
        return any(map(_is_ours, function.__mro__))
    try:
        return _is_ours(inspect.unwrap(function, stop=_is_ours))
    except ValueError:  # a chain without an end, as of a mock that has every attribute
        return False
