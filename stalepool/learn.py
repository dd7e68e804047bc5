"""What an answer tells of the connection it came by."""

from __future__ import annotations

from typing import Any, Optional

from stalepool import aside, reconnect, sending
from stalepool.call import Call
from stalepool.pooled import QUIET, Fresh, known, remember

SWITCHING_PROTOCOLS = 101  # RFC 9110, section 15.2.2


def learn(call: Call, response: Any) -> None:
    """Remember the socket from its first answer on."""
    conn = call.conn
    try:
        fresh: Optional[Fresh] = getattr(conn, "_stalepool_fresh", None)
        if fresh is not None:
            conn._stalepool_fresh = None
        reconnect.note_answer(conn, was_reused=call.pooled is not None)
        pooled = known(conn)
        if pooled is not None:
            pooled.outgoing = QUIET
            pooled.idle_s = 0.0
        elif conn.sock is not None:  # None: "Connection: close"
            pooled = remember(conn, checked_at=call.began)
            pooled.user_timeout_ms = None if fresh is None else fresh.user_timeout_ms
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))
    hear(conn, response)


def hear(conn: Any, response: Any) -> None:
    """Take in what the answer says of its connection: for how long it is kept, or that it goes."""
    try:
        pooled = known(conn)
        if pooled is None:
            return
        if "keep-alive" in response.headers:
            pooled.hear(response.headers["keep-alive"])
        if response.status == SWITCHING_PROTOCOLS:
            # somebody takes the socket over, and may stream into it: no user timeout from here on
            sending.bound(conn, pooled, 0)
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))
