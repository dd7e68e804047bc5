"""One call of ``HTTPConnectionPool._make_request``: what it was given, and what is said of it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Callable, Dict, NamedTuple, Optional

from stalepool import aside, patience, replay, stats
from stalepool.pooled import Pooled, origin_of
from stalepool.settings import Settings

_logger = logging.getLogger("stalepool.request")  # one name for what becomes of requests


class Call(NamedTuple):
    """One call of urllib3's ``_make_request``, and what was true when it began."""

    stock: Callable[..., Any]
    pool: Any
    conn: Any
    method: str
    url: str
    kwargs: Dict[str, Any]
    settings: Settings
    pooled: Optional[Pooled]  # what is remembered of the connection; None: it is a fresh one
    began: float  # monotonic
    handled: Optional[BaseException]  # what the caller was handling, see errors.chain()

    def send(self, **changes: Any) -> Any:
        """Let urllib3 send it."""
        kwargs = {**self.kwargs, **changes} if changes else self.kwargs
        return self.stock(self.pool, self.conn, self.method, self.url, **kwargs)

    @property
    def body(self) -> Any:
        return self.kwargs.get("body")

    @property
    def timeout(self) -> Any:
        return self.kwargs.get("timeout", self.pool.timeout)

    def describe(self, body_start: Optional[int]) -> replay.Request:
        headers, chunked = self.kwargs.get("headers"), self.kwargs.get("chunked")
        return replay.describe(self.method, headers, self.body, body_start, chunked)

    def time_left_s(self) -> Optional[float]:
        """Of what the first attempt was allowed to take; None without a limit."""
        limit_s = patience.read_limit_s(self.timeout)
        return None if limit_s is None else limit_s - (monotonic() - self.began)

    def timeout_left(self) -> Any:
        """The caller's timeout, for a second attempt."""
        return patience.shortened(self.timeout, self.time_left_s())

    def tally(self, group: str, name: str) -> None:
        """Count one event of :data:`stats.GROUPS`."""
        stats.origin(self._origin_name()).count(group, name)

    def log(self, message: str, *args: object) -> None:
        message = "%s %s: " + message
        aside.log(_logger, logging.DEBUG, message, self.method, self._origin_name(), *args)

    def _origin_name(self) -> str:
        pooled = getattr(self.conn, "_stalepool", None)
        return pooled.origin_name if isinstance(pooled, Pooled) else origin_of(self.conn)
