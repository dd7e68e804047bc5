"""Which modules get seams, and where their copies hang in a process."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from types import ModuleType
    from typing import List

PACKAGE, POOL, AFTER_POOL = "urllib3", "urllib3.connectionpool", "urllib3.poolmanager"
SESSION = "keystoneauth1.session"

#: what gets seams -> a name near its end: with that, the module is as good as built
WATCHED = {POOL: "connection_from_url", SESSION: "TCPKeepAliveAdapter"}


def present() -> List[ModuleType]:
    """The copies there are: imported, kept by import_patched, or hanging off an old package."""
    packages = [sys.modules.get(PACKAGE), sys.modules.get("__patched_module_" + PACKAGE)]
    found = [sys.modules.get(POOL), sys.modules.get("__patched_module_" + POOL)]
    found += [getattr(package, "connectionpool", None) for package in packages]
    found += [sys.modules.get(SESSION)]
    return [module for module in found if module is not None]


def is_half_built(module: ModuleType) -> bool:
    """Whether it is still being imported, and has not come to its end."""
    spec = getattr(module, "__spec__", None)
    is_being_built = bool(getattr(spec, "_initializing", False))
    return is_being_built and not hasattr(module, WATCHED[module.__name__])
