"""The world a client lives in: native threads, or eventlet's."""

from __future__ import annotations

import select

#: the floor's poll, taken before anybody patches: eventlet deletes it from ``select``
kernel_poll = select.poll

THREADS, EVENTLET = "threads", "eventlet"


def enter(world: str) -> None:
    """Monkey patch this process, as the first thing it does."""
    if world == EVENTLET:
        import eventlet

        eventlet.monkey_patch()
