"""The module that an eventlet service of the demo imports first; it switches stalepool on.

``import stalepool`` is all that a service adds to its start-up, before ``monkey_patch()`` or after.
Without stalepool, STALEPOOL_ENABLED=0 makes that line do nothing.
"""

from __future__ import annotations

import _thread
import os
from typing import Any, Callable, Dict

import eventlet

import stalepool


def _end_with_the_demo(read: Callable[[int, int], bytes]) -> None:
    read(0, 1)  # the demo writes nothing: this is its end, even where it was killed
    os._exit(1)


_thread.start_new_thread(_end_with_the_demo, (os.read,))  # not a green one: it would be patched
eventlet.monkey_patch()


def counters() -> Dict[str, Any]:
    """The shim's verdicts and replays over all origins, and whether it is in urllib3 at all.

    A request that took a fresh connection for a reason counts as a verdict of that name.
    """
    seen = stalepool.snapshot()
    totals = seen.get("totals", {})
    return {
        "shim": bool(seen["patched"]),
        "judged": {**totals.get("verdicts", {}), **totals.get("moved", {})},
        "replays": dict(totals.get("replays", {})),
    }
