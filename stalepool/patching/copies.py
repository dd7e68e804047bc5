"""The modules that are patched, and how the copies of urllib3 in a process are found.

A copy is a package named ``urllib3``, or one whose name ends in ``.urllib3``, as in pip and
Snowflake, or one that eventlet's ``import_patched`` has made.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, List, Optional, Tuple

POOL, SOCKS = "connectionpool", "contrib.socks"
#: a package loads it after its connectionpool, which is complete by then
AFTER_POOL = "poolmanager"
SESSION = "keystoneauth1.session"

_GREEN = "__patched_module_"  # the prefix under which import_patched keeps a copy


def place_of(fullname: str) -> Optional[Tuple[str, str]]:
    """Split a module's name into its copy of urllib3 and its place in it.

    :returns: for example ``("pip._vendor.urllib3", "contrib.socks")``; the second is empty for the
        package itself; ``("", SESSION)`` for keystoneauth1; None for any other module.
    """
    if "urllib3" not in fullname:
        return ("", SESSION) if fullname == SESSION else None
    part = next((p for p in (POOL, SOCKS, AFTER_POOL) if fullname.endswith("." + p)), "")
    package = fullname[: -len(part) - 1] if part else fullname
    is_a_copy = package == "urllib3" or package.endswith(".urllib3")
    return (package, part) if is_a_copy else None


def parts_of(package: Optional[ModuleType]) -> List[ModuleType]:
    """Find the modules of one copy that are to be patched, even if not in ``sys.modules``."""
    found = [_attribute(package, POOL), _attribute(_attribute(package, "contrib"), "socks")]
    # a name in sys.modules may come before the attribute of the package
    name = _attribute(package, "__name__")
    found += [sys.modules.get("%s.%s" % (name, part)) for part in (POOL, SOCKS)]
    return _complete(found)


def present() -> List[ModuleType]:
    """Find all modules to be patched, whatever their names."""
    found: List[Any] = []
    for name, module in list(sys.modules.items()):
        place = place_of(name.replace(_GREEN, ""))
        if place is not None and place[1] != AFTER_POOL:
            found += [module] if place[1] else parts_of(module)
    return _complete(found)


def _attribute(module: Any, name: str) -> Any:
    """Return an attribute of a module, or None. This does not load a lazy module."""
    is_module = isinstance(module, type(sys))
    return object.__getattribute__(module, "__dict__").get(name) if is_module else None


def _complete(modules: List[Any]) -> List[ModuleType]:
    """Return those that are fully imported modules of a copy, each once."""
    found = dict.fromkeys(m for m in modules if place_of(str(_attribute(m, "__name__"))))
    return [m for m in found if not getattr(_attribute(m, "__spec__"), "_initializing", False)]
