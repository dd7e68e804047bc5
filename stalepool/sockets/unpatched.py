"""The standard library as it was before eventlet or gevent patched it.

The check must ask the kernel itself: a green ``poll`` would yield to the hub. eventlet deletes
``select.poll``, and keeps the original module as ``__original_module_select``. gevent replaces it,
and keeps the original in ``gevent.monkey``. Neither is imported here.
"""

from __future__ import annotations

import contextlib
import sys
from types import BuiltinFunctionType
from typing import Any, Callable, Iterator, Optional

_KEPT = "__original_module_"  # the prefix under which eventlet keeps what it has replaced


def poll() -> Optional[Callable[[], Any]]:
    """Return the kernel's own ``select.poll``; None on a platform without it. Never yields."""
    for name in ("select", _KEPT + "select"):
        found = getattr(sys.modules.get(name), "poll", None)
        if isinstance(found, BuiltinFunctionType):
            return found
    gevent_monkey = sys.modules.get("gevent.monkey")
    return None if gevent_monkey is None else gevent_monkey.get_original("select", "poll")


@contextlib.contextmanager
def in_sight() -> Iterator[None]:
    """Context manager in which imports get the original modules of the standard library.

    ``eventlet.import_patched`` puts green modules into ``sys.modules`` while it imports a copy of
    urllib3. Our modules, and wrapt with its locks, are loaded in that time, for the whole process.
    """
    kept = [name[len(_KEPT) :] for name in list(sys.modules) if name.startswith(_KEPT)]
    present = {name: sys.modules[name] for name in kept if name in sys.modules}
    green = {name: m for name, m in present.items() if m.__name__.startswith("eventlet.green.")}
    sys.modules.update({name: sys.modules[_KEPT + name] for name in green})
    try:
        yield
    finally:
        sys.modules.update(green)
