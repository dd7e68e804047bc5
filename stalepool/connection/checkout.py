"""The fast check at checkout: one poll, no yield. If it finds anything, the full check decides.

Replaces ``is_connection_dropped``, which urllib3 calls once at each checkout.
"""

from __future__ import annotations

from typing import Any, Callable

from stalepool.clock import monotonic
from stalepool.connection import full_check
from stalepool.connection.state import CHECKED, by_id
from stalepool.foreign import is_foreign

Check = Callable[[Any], bool]


def make_is_connection_dropped(original: Check, module: Any) -> Check:
    """Return the function that replaces urllib3's. Each line costs a twentieth of the whole.

    A closed descriptor is found (POLLNVAL), but urllib3 then fails to close it, as in stock.

    :param original: urllib3's own check, which decides where ours cannot. One that somebody has put
        in its place is always asked.
    """

    def is_connection_dropped(conn: Any) -> bool:
        try:
            sock = conn.sock
            state: Any = by_id(id(sock))
            if (
                state is not None
                and state.sock() is sock
                and monotonic() - state.used_at < state.full_check_from_s
                and not state.poll.poll(0)
                and not (state.is_tls and sock.pending())
            ):
                state.phase = CHECKED
                next(state.origin.alive_ticks)
                return False
        except (AttributeError, OSError, RuntimeError, ValueError) as error:
            # a mock, or two threads with one connection: the full check handles it
            if is_foreign(error):
                raise  # a signal handler's
        return full_check.is_dropped(conn, original)

    if str(getattr(original, "__module__", "")).endswith("urllib3.util.connection"):
        return is_connection_dropped
    return lambda conn: is_connection_dropped(conn) or bool(original(conn))
