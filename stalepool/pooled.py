"""What is remembered of a pooled connection, from one checkout to the next.

The memory is of a *socket*: a connection object gets new sockets over its life, and a descriptor
number new owners. So it carries the socket it speaks of, and is worth nothing for any other.
"""

from __future__ import annotations

import functools
import http.client
from typing import Any, Iterator, Optional, Tuple

from stalepool import runtime
from stalepool.peek import Poll
from stalepool.wire import TlsLayer

_ATTRIBUTE = "_stalepool"

#: A server closes at the time it announced, and the FIN takes a while to arrive. undici (Node.js)
#: takes off as much, and does not reuse a connection announced for less.
ANNOUNCED_MARGIN_S = 2.0


#: what the seam that sends may expect: no request, as far as we were told; its first byte, and a
#: look before that; its bytes
QUIET, LOOK_DUE, SENDING = range(3)

#: what makes a request like another: method, read and total timeout
Routine = Tuple[Any, ...]


class Pooled:
    """One socket's memory; with the kernel's poll object, which is half of it, some 600 bytes."""

    __slots__ = (
        "sock",
        "fork_generation",
        "origin_name",
        "checked_at",
        "idle_s",
        "announced_s",
        "user_timeout_ms",
        "is_tunnel",
        "outgoing",
        "routine",
        # set by the first look:
        "installation",
        "fd",
        "poll",
        "tls",
        "kept",
        "trust_s",
        "trusted_until",
    )

    def __init__(self, sock: Any, origin_name: str, checked_at: Optional[float]) -> None:
        self.sock = sock
        self.fork_generation = runtime.fork_generation
        self.origin_name = origin_name
        #: monotonic time of the last checkout, or of the first request's start; data has come in
        #: since, so it bounds the idle time from above. None: was pooled before we came
        self.checked_at = checked_at
        #: how long it had been idle when it was last looked at closely
        self.idle_s = 0.0
        self.announced_s: Optional[float] = None
        #: the TCP_USER_TIMEOUT we left on the socket; None: an application's own, or none to be had
        self.user_timeout_ms: Optional[int] = None
        self.is_tunnel = False
        #: told to the seam that sends: QUIET, LOOK_DUE or SENDING
        self.outgoing = QUIET
        #: the last request that needed no decision of its own
        self.routine: Optional[Routine] = None
        self.installation: Optional[runtime.Installation] = None
        self.fd = -1
        self.poll: Optional[Poll] = None
        self.tls: Optional[TlsLayer] = None
        self.kept: Optional[Iterator[int]] = None
        #: how long the short look will do after a closer one, and until when (monotonic). A fixed
        #: time, so that the short look has no sum to make: also in constant use a closer one is due
        self.trust_s = 0.0
        self.trusted_until = 0.0

    def hear(self, announced: str) -> None:
        """Take in a ``Keep-Alive`` header, such as ``timeout=5, max=100`` (RFC 2068, 19.7.1.1)."""
        announced_s = announced_timeout_s(announced)
        if announced_s == self.announced_s:
            return
        self.announced_s = announced_s
        if self.announced_limit_s is not None:
            self.trust_s = min(self.trust_s, self.announced_limit_s)
            latest = (self.checked_at or 0.0) + self.trust_s
            self.trusted_until = min(self.trusted_until, latest)

    @property
    def announced_limit_s(self) -> Optional[float]:
        """How long the connection may idle by its server's word, a margin taken off.

        0 where the server's time is no longer than the margin: the connection is not reused.
        """
        return None if self.announced_s is None else max(0.0, self.announced_s - ANNOUNCED_MARGIN_S)


class Fresh:
    """What is known of a connection whose present or next socket has not answered yet."""

    __slots__ = ("body_size", "is_bound", "user_timeout_ms", "wanted_user_timeout_ms")

    def __init__(self, wanted_user_timeout_ms: int, body_size: int) -> None:
        self.body_size = body_size
        self.wanted_user_timeout_ms = wanted_user_timeout_ms
        self.is_bound = False
        #: what was set; None: an application's own one, or none to be had
        self.user_timeout_ms: Optional[int] = None


@functools.lru_cache(maxsize=128)
def announced_timeout_s(announced: str) -> Optional[float]:
    """The seconds in a ``Keep-Alive`` header; None where it does not say.

    >>> announced_timeout_s("timeout=5, max=100")
    5.0
    """
    for parameter in announced.split(","):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "timeout" and value.strip().isdecimal():
            return float(value)
    return None


def memory_of(conn: Any) -> Optional[Pooled]:
    """What is remembered of the connection's present socket."""
    pooled = getattr(conn, _ATTRIBUTE, None)
    if isinstance(pooled, Pooled) and pooled.sock is conn.sock:
        return pooled
    return None


def known(conn: Any) -> Optional[Pooled]:
    """What is remembered of an open connection; None: it has not answered yet."""
    return None if conn.sock is None else memory_of(conn)


def remember(conn: Any, checked_at: Optional[float]) -> Pooled:
    """Begin a memory of the connection's present socket."""
    before = getattr(conn, _ATTRIBUTE, None)
    # urllib3 2.x forgets the tunnel when it closes; the origin stays what it was
    origin_name = before.origin_name if isinstance(before, Pooled) else origin_of(conn)
    pooled = Pooled(conn.sock, origin_name, checked_at)
    pooled.is_tunnel = getattr(conn, "_tunnel_host", None) is not None
    if before is None and checked_at is None:
        pooled.fork_generation = 0  # pooled before we came, so opened by the process we came to
    setattr(conn, _ATTRIBUTE, pooled)
    return pooled


def origin_of(conn: Any) -> str:
    """``scheme://host:port`` of who answers: behind a CONNECT tunnel its far end, else the peer."""
    host = getattr(conn, "_tunnel_host", None) or conn.host
    port = getattr(conn, "_tunnel_port", None) if host is not conn.host else conn.port
    return _origin("https" if conn.default_port == 443 else "http", host, port)


@functools.lru_cache(maxsize=256)
def _origin(scheme: str, host: str, port: Any) -> str:
    """One string for all connections to an origin: it would be some 70 bytes of each."""
    return "%s://%s:%s" % (scheme, "[%s]" % host if ":" in host else host, port)


def is_http1(conn: Any) -> bool:
    """Whether a connection is of urllib3's own HTTP/1.1 class, or of one made from it.

    "Readable means not reusable" is a rule of HTTP/1.1. HTTP/2 connections talk when idle; stubs,
    such as vcrpy's, have no connection behind them, and show it by computing their ``sock``.
    """
    cls: Any = type(conn)
    return _is_http1_class(cls)


@functools.lru_cache(maxsize=128)
def _is_http1_class(cls: Any) -> bool:
    if not issubclass(cls, http.client.HTTPConnection) or hasattr(cls, "sock"):
        return False
    modules = {base.__module__ for base in cls.__mro__}
    is_urllib3 = any(module.endswith("urllib3.connection") for module in modules)
    return is_urllib3 and not any(".http2." in module for module in modules)
