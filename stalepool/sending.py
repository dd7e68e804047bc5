"""What goes out: a second look before a request's first byte, and the first request's time bound.

Takes the place of ``HTTPConnection.send``, which carries every byte urllib3 sends.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Optional

from stalepool import answer, aside, patience, peek
from stalepool.pooled import Fresh, Pooled
from stalepool.verdict import Action, Verdict
from stalepool.wire import wire_of


class FoundStale(Exception):
    """The second look found the connection dead; not a byte of the request was sent.

    No OSError: urllib3 swallows some of those while it sends.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.value)
        self.verdict = verdict


def make_send(stock: Callable[..., Any], connectionpool: Any) -> Callable[..., Any]:
    """The function that takes urllib3's place; a plain one, since every request pays for it.

    It looks only where the request has told it to (:attr:`Pooled.looks_again`), and once.
    """

    @functools.wraps(stock)
    def send(self: Any, data: Any) -> Any:
        # no look at __dict__: CPython 3.11 makes every later access to the attributes slower for it
        pooled: Any = getattr(self, "_stalepool", None)
        is_known = pooled is not None and pooled.sock is self.sock
        if is_known and pooled.looks_again:
            pooled.looks_again = False
            try:
                # the TLS layer need not be asked again: nobody has read through it since checkout
                is_suspect = pooled.poll.poll(0)
            except Exception:  # whatever it was, the closer look meets it again, and says so
                is_suspect = True
            if is_suspect:
                _look_closer(self, pooled)
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


def bound(conn: Any, pooled: Pooled, timeout_ms: int) -> None:
    """Change the user timeout from that of the request before, where it is ours to change."""
    if pooled.user_timeout_ms is None or pooled.user_timeout_ms == timeout_ms:
        return
    wire = wire_of(conn.sock)
    if wire is not None:
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
        if fresh.wanted_user_timeout_ms:
            patience.set_user_timeout_ms(wire.raw, fresh.wanted_user_timeout_ms)
        fresh.user_timeout_ms = fresh.wanted_user_timeout_ms
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))
