"""The start of a green-threaded service that uses stalepool; its first import.

``import stalepool`` is all that a service adds to its start-up. Whether it
comes before ``monkey_patch()`` or after makes no difference. In the half
without stalepool STALEPOOL_ENABLED=0 makes that line do nothing.
"""

from __future__ import annotations

from typing import Dict

import eventlet

import stalepool
from stalepool.cli.demo.follow import follow_parent

follow_parent()
eventlet.monkey_patch()


def shim_is_active() -> bool:
    """Whether urllib3 checks its pooled connections in another way than its own."""
    import urllib3.connectionpool
    import urllib3.util.connection

    # urllib3 keeps it there without exporting it, which is what the type checker minds
    check = urllib3.connectionpool.is_connection_dropped  # type: ignore[attr-defined]
    return check is not urllib3.util.connection.is_connection_dropped


def counters() -> Dict[str, Dict[str, int]]:
    """The shim's verdicts and replays over all origins, empty without it.

    A request that took a fresh connection for a reason counts as a verdict of that name.
    """
    if not shim_is_active():
        return {"verdicts": {}, "replays": {}}
    totals = stalepool.snapshot()["totals"]
    return {
        "verdicts": {**totals.get("verdicts", {}), **totals.get("moved", {})},
        "replays": dict(totals.get("replays", {})),
    }
