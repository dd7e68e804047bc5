"""The standard library underneath eventlet's and gevent's patches.

The check must ask the kernel itself: a green ``poll`` would yield to the hub. eventlet deletes
``select.poll`` when it patches and keeps the untouched module as ``__original_module_select``;
gevent puts a cooperative ``poll`` in its place and keeps the original in ``gevent.monkey``.
Neither is ever imported here: what is not in ``sys.modules`` has patched nothing.
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType
from typing import Any, Callable, Optional


def poll() -> Optional[Callable[[], Any]]:
    """The kernel's own ``select.poll``, or None on a platform that has none. Never yields."""
    for name in ("select", "__original_module_select"):
        found = getattr(sys.modules.get(name), "poll", None)
        if isinstance(found, BuiltinFunctionType):
            return found
    gevent_monkey = sys.modules.get("gevent.monkey")
    if gevent_monkey is not None:
        return gevent_monkey.get_original("select", "poll")  # type: ignore[no-any-return]
    return None
