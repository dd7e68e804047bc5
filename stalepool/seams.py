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

from stalepool import aside, checkout, connect, request

Attribute = Callable[..., Any]


class Seam(NamedTuple):
    """One attribute of urllib3 that is replaced."""

    owner: str  # name in urllib3.connectionpool; empty for the module itself
    attribute: str
    parameters: Tuple[str, ...]  # the first ones it must have, or it is left alone
    wrap: Callable[[Attribute], Attribute]

    @property
    def name(self) -> str:
        return ".".join(filter(None, ("urllib3.connectionpool", self.owner, self.attribute)))


def _through_wrapt(wrapper: Callable[..., Any]) -> Callable[[Attribute], Attribute]:
    """For seams off the hot path: whatever is wrapped, binding and introspection stay right."""
    return lambda original: wrapt.FunctionWrapper(original, wrapper)


SEAMS = (
    Seam("", "is_connection_dropped", ("conn",), checkout.make_check),
    Seam(
        "HTTPConnectionPool",
        "_make_request",
        ("self", "conn", "method", "url"),
        request.make_make_request,
    ),
    Seam("HTTPConnection", "_new_conn", ("self",), _through_wrapt(connect.new_conn)),
)

#: the wrappers we made, told by identity: others copy attributes (functools.wraps) and equality
#: (wrapt). Weak, like the copies below, so that a copy of urllib3 that was thrown away can go
_ours: List[weakref.ref[Any]] = []

#: the connectionpool modules seen
_copies: weakref.WeakSet[ModuleType] = weakref.WeakSet()


def apply(connectionpool: ModuleType) -> None:
    """Wrap the seams of one copy of urllib3. What is wrapped already stays as it is.

    A seam that does not look as expected is left alone, counted and reported; nothing is raised.

    :param connectionpool: the copy's fully imported ``urllib3.connectionpool`` module.
    """
    _copies.add(connectionpool)
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
    for connectionpool in list(_copies):
        for seam in SEAMS:
            owner = _owner_of(connectionpool, seam)
            present = None if owner is None else _raw_attribute(owner, seam.attribute)
            if present is None or not _has_ours(present):
                continue
            if _is_ours(present):
                setattr(owner, seam.attribute, present.__wrapped__)
            else:
                left.append(seam.name)
        _copies.discard(connectionpool)
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
        ours = seam.wrap(original)
        _ours[:] = [ref for ref in _ours if ref() is not None] + [weakref.ref(ours)]
        setattr(owner, seam.attribute, ours)


def _owner_of(connectionpool: ModuleType, seam: Seam) -> Optional[Any]:
    return getattr(connectionpool, seam.owner, None) if seam.owner else connectionpool


def _raw_attribute(owner: Any, name: str) -> Optional[Any]:
    """What the owner itself holds, unbound; an attribute merely inherited is not the owner's."""
    return vars(owner).get(name)


def _is_ours(function: Any) -> bool:
    return any(ref() is function for ref in _ours)


def _has_ours(function: Any) -> bool:
    """Whether ours is anywhere in the chain of wrappers."""
    seen: Any = function
    while seen is not None:
        if _is_ours(seen):
            return True
        seen = getattr(seen, "__wrapped__", None)
    return False
