"""The table of all that is replaced in urllib3, and how patches are applied and undone.

A process may have several copies of urllib3, so a patch is looked up from the module of each copy.
Nothing here keeps a deleted copy alive: a replacement is held only by its class or module.
"""

from __future__ import annotations

import _imp  # the interpreter's import lock: reentrant, valid in a forked child, never green
import functools
import inspect
import weakref
from types import FunctionType, ModuleType
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from stalepool import fallback, runtime
from stalepool.connection.answer import make_replayed, make_response_class, make_sock_shutdown
from stalepool.connection.checkout import make_is_connection_dropped
from stalepool.connection.connect import make_new_conn
from stalepool.connection.send import make_send
from stalepool.contrib.keystone import make_request
from stalepool.patching.copies import POOL, SESSION, SOCKS, place_of

_INHERITED: Any = object()  #: stands for an attribute that the class itself does not have
LONGEST_CHAIN = 100  #: of wrappers of others; that of a mock is endless


def _bound(owner: Any, own: Any, name: str) -> Callable[..., Any]:
    """Return ``original``, which finds for each request what stock would: docs/design.rst.

    It takes an instance; or, where that may be None, the instance and its class.
    """
    if own is _INHERITED:
        return lambda obj, cls=None: getattr(super(owner, cls if obj is None else obj), name)
    bind = getattr(type(own), "__get__", None)
    if bind is None:
        return lambda obj, cls=None: own
    return lambda obj, cls=None: bind(own, obj, type(obj) if cls is None else cls)


class Patch(NamedTuple):
    """One attribute that is replaced, or added."""

    module: str  # its place in a copy of urllib3, or a full name
    owner: str  # name of a class in the module, or two; empty for the module itself
    attribute: str
    parameters: Optional[Tuple[str, ...]]  # those it has, "..." for any more; None: it is added
    bind: Optional[Callable[[Any, Any, str], Any]]  # None: ``make`` gets the original as it is
    make: Callable[[Any, ModuleType], Any]  # original, its module -> replacement

    def owner_in(self, module: ModuleType) -> Any:
        """Return the module itself, or the first of its classes that is there, or None."""
        found = (getattr(module, name, None) for name in self.owner.split())
        return next(filter(None, found), None) if self.owner else module

    def name_in(self, module: ModuleType) -> str:
        return ".".join(filter(None, (module.__name__, self.owner, self.attribute)))


PATCHES = (
    Patch(POOL, "", "is_connection_dropped", ("conn",), None, make_is_connection_dropped),
    Patch(POOL, "HTTPConnection", "_new_conn", ("self",), _bound, make_new_conn),
    Patch(POOL, "HTTPConnection", "send", ("self", "data"), _bound, make_send),
    Patch(POOL, "HTTPConnection", "response_class", ("sock", "..."), _bound, make_response_class),
    # what urllib3 1.26 and 2.x call it
    Patch(POOL, "HTTPResponse BaseHTTPResponse", "stalepool_replayed", None, None, make_replayed),
    Patch(POOL, "HTTPResponse BaseHTTPResponse", "_sock_shutdown", None, None, make_sock_shutdown),
    Patch(SOCKS, "SOCKSConnection", "_new_conn", ("self",), _bound, make_new_conn),
    Patch(SESSION, "Session", "request", ("self", "url", "..."), None, make_request),
)


class _Applied(NamedTuple):
    """One patch in force; the last three are weak references, so that a deleted copy is freed."""

    name: str
    attribute: str
    is_own: bool  # the class itself had the attribute
    module: Callable[[], Optional[ModuleType]]
    owner: Callable[[], Any]
    ours: Callable[[], Any]

    def is_in_force(self, owner: Any) -> bool:
        """Tell whether the replacement, or what somebody has put around it, is in its place."""
        ours = self.ours()
        if ours is None or owner is None or self.owner() is not owner:
            return False
        stock = ours.__wrapped__ if self.is_own else _INHERITED
        return vars(owner).get(self.attribute, _INHERITED) is not stock

    def undo(self) -> bool:
        """Restore the original; return False if somebody has wrapped ours, which then stays."""
        owner, ours = self.owner(), self.ours()
        if self.is_in_force(owner):
            if vars(owner).get(self.attribute) is not ours:
                return False
            if self.is_own:
                setattr(owner, self.attribute, ours.__wrapped__)
            else:
                delattr(owner, self.attribute)
        return True


_applied: List[_Applied] = []

#: module's name -> the patches that were left out there, and why
_left_out: Dict[str, List[str]] = {}


def apply(module: ModuleType) -> None:
    """Patch one fully imported module of one copy; what is patched already stays so.

    What does not look as expected is left out, counted, and named in one log line. Raises nothing.
    Yields only in that log line.
    """
    _, part = place_of(module.__name__) or ("", "")
    found = [(patch, _apply_one(patch, module)) for patch in PATCHES if patch.module == part]
    problems = ["%s: %s" % (patch.name_in(module), problem) for patch, problem in found if problem]
    _left_out[module.__name__] = problems
    if problems:
        fallback.fall_back("patch_missing", "; ".join(problems))


def remove() -> List[str]:
    """Restore the originals in every copy; what is called meanwhile passes through.

    :returns: the patched functions that somebody else has wrapped: there ours stays.
    """
    runtime.put_in_force(None)
    _imp.acquire_lock()
    try:
        # the newest first: it may have been applied after somebody had undone an older one
        _applied[:] = [applied for applied in _applied[::-1] if not applied.undo()][::-1]
        names = [applied.name for applied in _applied]
    finally:
        _imp.release_lock()
    if names:
        fallback.fall_back("wrapped_by_others", ", ".join(names))
    return names


def patched() -> List[str]:
    """Return the names of the modules in which something is patched, of each live copy."""
    modules = {applied.module() for applied in list(_applied)}
    return sorted(module.__name__ for module in modules if module is not None)


def unpatched() -> List[str]:
    """Return what could not be patched, and why."""
    return [problem for problems in list(_left_out.values()) for problem in problems]


@fallback.guarded("patch_missing", "could not be patched")
def _apply_one(patch: Patch, module: ModuleType) -> str:
    """Apply one patch; return why it could not be applied, empty if it could."""
    owner = patch.owner_in(module)
    if not isinstance(owner, type if patch.owner else ModuleType):
        return "not there"
    if patch.module == SESSION:
        import wrapt  # noqa: F401  # not under the lock: another thread may be importing it
    _imp.acquire_lock()
    try:
        _applied[:] = [applied for applied in _applied if applied.ours() is not None]
        return _replace(patch, module, owner)
    finally:
        _imp.release_lock()


def _replace(patch: Patch, module: ModuleType, owner: Any) -> str:
    name = patch.attribute
    getattr(owner, name, None)  # a module may not have imported it yet (PEP 810)
    holders = (vars(holder) for holder in getattr(owner, "__mro__", (owner,)))
    # getattr_static() refuses a wrapper of wrapt's around a class
    stock: Any = next((holder[name] for holder in holders if name in holder), None)
    for applied in _applied:
        if applied.ours() is stock or (applied.attribute == name and applied.is_in_force(owner)):
            return ""
    problem = "" if patch.parameters is None else _unexpected(stock, patch.parameters)
    if not problem:
        own = vars(owner).get(name, _INHERITED)
        original = stock if patch.bind is None else patch.bind(owner, own, name)
        ours = patch.make(original, module)
        if isinstance(ours, FunctionType):
            functools.update_wrapper(ours, stock)
        ours.__wrapped__ = stock  # for introspection, and to restore it
        references = map(weakref.ref, (module, owner, ours))
        applied = _Applied(patch.name_in(module), name, own is not _INHERITED, *references)
        setattr(owner, name, ours)
        _applied.append(applied)
    return problem


def _unexpected(stock: Any, parameters: Tuple[str, ...]) -> str:
    """Return how a function differs from the expected one; empty if it does not."""
    if stock is None:
        return "not there"
    for _ in range(LONGEST_CHAIN):
        # not by inspect.unwrap: since Python 3.13 it stops at a class in wrapt's wrapper
        stock = getattr(stock, "__wrapped__", stock)
    try:
        found = list(inspect.signature(stock).parameters.values())
    except (TypeError, ValueError):
        return "not a function"
    own = tuple(p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    wanted = tuple(name for name in parameters if name != "...")
    # fewer: it has to take *args, as wrappers do; more: urllib3 may pass what ours does not take
    lacks = len(own) < len(wanted) and all(p.kind is not p.VAR_POSITIONAL for p in found)
    has_more = len(own) > len(wanted) and "..." not in parameters
    if own[: len(wanted)] == wanted[: len(own)] and not lacks and not has_more:
        return ""
    return "takes (%s)" % ", ".join(parameter.name for parameter in found)
