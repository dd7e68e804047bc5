"""The kernel's own ``poll``, taken before anything has patched the process."""

from __future__ import annotations

import select
from typing import Any

POLLIN = select.POLLIN
POLLRDHUP = select.POLLRDHUP
POLLHUP = select.POLLHUP

_NAMES = tuple((name, getattr(select, "POLL" + name)) for name in ("IN", "RDHUP", "HUP", "ERR"))
_poll = select.poll


def poll_now(raw: Any) -> int:
    """What ``poll(0)`` shows on a socket; 0 for one that is closed. Reads nothing."""
    if raw.fileno() < 0:
        return 0
    poll = _poll()
    poll.register(raw.fileno(), POLLIN | POLLRDHUP)
    found = poll.poll(0)
    return int(found[0][1]) if found else 0


def names_of(events: int) -> str:
    return " ".join(name for name, bit in _NAMES if events & bit) or "nothing"
