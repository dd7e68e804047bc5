"""An assertion that a block of code does not yield to the hub of eventlet or gevent."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Any, Iterator


@contextlib.contextmanager
def no_hub_switch() -> Iterator[None]:
    """Assert that the block yields neither to eventlet's or gevent's hub, nor to another thread.

    :raises AssertionError: it yielded; raised at the end of the block, with the first place.
    :raises RuntimeError: neither eventlet nor gevent is imported, so that nothing could yield.
    """
    greenlet = sys.modules.get("greenlet")
    if greenlet is None or not {"eventlet", "gevent"} & set(sys.modules):
        raise RuntimeError("no_hub_switch: neither eventlet nor gevent is imported in this process")
    here = greenlet.getcurrent()
    switches: list[str] = []

    def note(event: str, switched: Any) -> None:
        origin, target = switched
        if origin is here and target is not here:
            place = traceback.format_stack(origin.gr_frame, limit=8)
            switches.append("".join(place))
        if before is not None:
            before(event, switched)

    before = greenlet.gettrace()
    greenlet.settrace(note)
    try:
        yield
    finally:
        greenlet.settrace(before)
    if switches:
        raise AssertionError(
            f"the block yielded {len(switches)} times, first from here:\n{switches[0]}"
        )
