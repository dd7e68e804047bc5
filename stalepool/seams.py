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

from stalepool import answer, aside, checkout, connect, routine, sending

Attribute = Callable[..., Any]


class Seam(NamedTuple):
    """One attribute of urllib3 that is replaced."""

    owner: str  # name in urllib3.connectionpool; empty for the module itself
    attribute: str
    parameters: Tuple[str, ...]  # the first ones it must have, or it is left alone
    wrap: Callable[[Attribute, ModuleType], Attribute]  # original, connectionpool -> ours

    @property
    def name(self) -> str:
        return ".".join(filter(None, ("urllib3.connectionpool", self.owner, self.attribute)))


def _new_conn(original: Attribute, connectionpool: ModuleType) -> Attribute:
    # off the hot path, so through wrapt: binding and introspection stay right whatever is wrapped
    wrapper: Attribute = wrapt.FunctionWrapper(original, connect.make_new_conn(connectionpool))
    return wrapper


SEAMS = (
    Seam("", "is_connection_dropped", ("conn",), checkout.make_check),
    Seam(
        "HTTPConnectionPool",
        "_make_request",
        ("self", "conn", "method", "url"),
        routine.make_make_request,
    ),
    Seam("HTTPConnection", "send", ("self", "data"), sending.make_send),
    Seam("HTTPConnection", "response_class", ("sock",), answer.make_response_class),
    Seam("HTTPConnection", "_new_conn", ("self",), _new_conn),
)

#: the connectionpool modules whose seams are wrapped. Weak, like the wrappers below, so that a copy
#: of urllib3 that was thrown away can go
copies: weakref.WeakSet[ModuleType] = weakref.WeakSet()

#: the wrappers we made, by their identity: others copy attributes (functools.wraps) and equality
#: (wrapt)
_ours: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def apply(connectionpool: ModuleType) -> None:
    """Wrap the seams of one copy of urllib3. What is wrapped already stays as it is.

    A seam that does not look as expected is left alone, counted and reported; nothing is raised.

    :param connectionpool: the copy's fully imported ``urllib3.connectionpool`` module.
    """
    copies.add(connectionpool)
    for seam in SEAMS:
        try:
            _apply_one(connectionpool, seam)
        except Exception as error:
            aside.stand_aside("seam_missing", "%s: %r" % (seam.name, error))


def remove() -> List[str]:
    """Put the originals back in every copy.

    :returns: the seams on which somebody else has wrapped: there ours stays, as a pass-through.
    """
    left = []
    for connectionpool in list(copies):
        for seam in SEAMS:
            owner = _owner_of(connectionpool, seam)
            present = None if owner is None else _raw_attribute(owner, seam.attribute)
            if present is None or not _has_ours(present):
                continue
            if _is_ours(present):
                _put_back(owner, seam.attribute, present.__wrapped__)
            else:
                left.append(seam.name)
        copies.discard(connectionpool)
    if left:
        aside.stand_aside("wrapped_by_others", ", ".join(left))
    return left


def _apply_one(connectionpool: ModuleType, seam: Seam) -> None:
    owner = _owner_of(connectionpool, seam)
    original = None if owner is None else _raw_attribute(owner, seam.attribute)
    if original is None:
        aside.stand_aside("seam_missing", "%s is not there" % seam.name)
    elif not _has_ours(original):
        names = tuple(inspect.signature(original).parameters)
        if names[: len(seam.parameters)] != seam.parameters:
            aside.stand_aside("seam_missing", "%s takes %s" % (seam.name, ", ".join(names)))
            return
        ours = seam.wrap(original, connectionpool)
        _ours[id(ours)] = ours
        setattr(owner, seam.attribute, ours)


def _owner_of(connectionpool: ModuleType, seam: Seam) -> Optional[Any]:
    return getattr(connectionpool, seam.owner, None) if seam.owner else connectionpool


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
