"""One request over a connection: what its response says about the connection it came on.

Takes the place of ``HTTPConnectionPool._make_request``, which urllib3 1.26 and 2.x call once for
each request they send, with the connection as the first argument.
"""

from __future__ import annotations

import functools
from time import monotonic
from typing import Any, Callable

from stalepool import aside, runtime
from stalepool.pooled import is_http1, memory_of, remember


def make_make_request(stock: Callable[..., Any]) -> Callable[..., Any]:
    """The function that takes urllib3's place; a plain one, since every request pays for it."""

    @functools.wraps(stock)
    def _make_request(self: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
        began = monotonic()
        response = stock(self, conn, *args, **kwargs)
        if runtime.current is not None:
            try:
                _note(conn, response, began)
            except Exception as error:
                aside.stand_aside("request_failed", repr(error))
        return response

    return _make_request


def _note(conn: Any, response: Any, began: float) -> None:
    """Remember the socket from its first answer on, and how long its server keeps it."""
    if conn.sock is None or not is_http1(conn):  # None: "Connection: close"
        return
    pooled = memory_of(conn) or remember(conn, checked_at=began)
    announced = response.headers.get("keep-alive")
    if announced is not None and announced != pooled.announced:
        pooled.hear(announced)
