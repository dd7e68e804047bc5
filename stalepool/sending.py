"""What goes out: a second look before a request's first byte, and the first request's time bound.

Takes the place of ``HTTPConnection.send``, which carries every byte urllib3 sends.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Optional

from stalepool import answer, aside, patience, peek, tcpinfo
from stalepool.pooled import LOOK_DUE, QUIET, SENDING, Fresh, Pooled
from stalepool.verdict import Action, Verdict
from stalepool.wire import Wire, wire_of

_HEAD_SIZE = 1024  # bytes of a request line and headers, as a guess


class FoundStale(Exception):
    """The second look found the connection dead; not a byte of the request was sent.

    No OSError: urllib3 swallows some of those while it sends.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.value)
        self.verdict = verdict


def make_send(stock: Callable[..., Any], connectionpool: Any) -> Callable[..., Any]:
    """The function that takes urllib3's place; a plain one, since every request pays for it.

    It looks only where the request has told it to (:attr:`Pooled.outgoing`), and once.
    """

    @functools.wraps(stock)
    def send(self: Any, data: Any) -> Any:
        # no look at __dict__: CPython 3.11 makes every later access to the attributes slower for it
        pooled: Any = getattr(self, "_stalepool", None)
        is_known = pooled is not None and pooled.sock is self.sock is not None
        if is_known and pooled.outgoing == LOOK_DUE:
            pooled.outgoing = SENDING
            try:
                # the TLS layer need not be asked again: nobody has read through it since checkout
                is_suspect = pooled.poll.poll(0)
            except Exception:  # whatever it was, the closer look meets it again, and says so
                is_suspect = True
            if is_suspect:
                _look_closer(self, pooled)
        elif is_known and pooled.outgoing == QUIET:
            _let_stream(self, pooled)
        try:
            sent = stock(self, data)  # connects first, where the connection is not open yet
        except Exception as error:
            answer.mark(error, answer_began=False)
            raise
        if not is_known:
            _bound_first(self, getattr(self, "_stalepool_fresh", None))
        return sent

    return send


def _look_closer(conn: Any, pooled: Pooled) -> None:
    """:raises FoundStale: the connection must not carry the request."""
    try:
        wire = wire_of(conn.sock)
        if wire is None or pooled.poll is None:
            return
        verdict = peek.look(wire, pooled.poll)
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))
        return
    if verdict.action is Action.DISCARD:
        raise FoundStale(verdict)


def _let_stream(conn: Any, pooled: Pooled) -> None:
    """Somebody sends past the seam of requests, or in audit mode: no user timeout of ours for that.

    requests before 2.29 does with a body that it sends in chunks.
    """
    pooled.routine = None  # the next request sets it anew
    try:
        bound(conn, pooled, 0)
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))


def bound(conn: Any, pooled: Pooled, timeout_ms: int, body_size: int = 0) -> None:
    """Change the user timeout from that of the request before, where it is ours to change.

    :param body_size: bytes that are to follow the request's head, see :func:`_takes_at_once`.
    """
    if pooled.user_timeout_ms is None or (pooled.user_timeout_ms == timeout_ms and not body_size):
        return
    wire = wire_of(conn.sock)
    if wire is not None:
        if body_size and not _takes_at_once(wire, body_size):
            timeout_ms = 0
        if pooled.user_timeout_ms == timeout_ms:
            return
        pooled.user_timeout_ms = None  # should this fail, it is not tried again
        patience.set_user_timeout_ms(wire.raw, timeout_ms)
        pooled.user_timeout_ms = timeout_ms


def _bound_first(conn: Any, fresh: Optional[Fresh]) -> None:
    """The user timeout on a new socket, now that it is there; an application's own one stays."""
    if fresh is None or fresh.is_bound:
        return
    fresh.is_bound = True
    try:
        wire = wire_of(conn.sock)
        if wire is None or patience.user_timeout_ms(wire.raw) != 0:
            return
        if not _takes_at_once(wire, fresh.body_size):
            fresh.user_timeout_ms = 0
            return
        if fresh.wanted_user_timeout_ms:
            patience.set_user_timeout_ms(wire.raw, fresh.wanted_user_timeout_ms)
        fresh.user_timeout_ms = fresh.wanted_user_timeout_ms
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))


def _takes_at_once(wire: Wire, body_size: int) -> bool:
    """Whether the peer's kernel has room for the request whether its program reads or not.

    A user timeout would cut off a peer with a small window that is busy for a while.
    """
    window = tcpinfo.send_window(wire) if body_size else None
    return window is None or body_size + _HEAD_SIZE <= window
