"""How long a request may take: the caller's limits, and TCP's own (TCP_USER_TIMEOUT).

Keepalive does not help a request that was written into a black hole: while data is unacknowledged
the kernel sends no probes, it retransmits, for 938 s under Linux's defaults. The user timeout
bounds that. It also aborts a peer that is alive and not reading (a zero window), so it is in force
only for small buffered requests, which any peer's kernel takes up whether its program reads or not;
it stays set from one of those to the next, which spares two system calls a request. Once it is over
the kernel counts no probes either: one that is unanswered then ends the connection (tcp(7)), so
keepalive has to begin early enough for more than one to fit in, as the default numbers do.
"""

from __future__ import annotations

import _socket
from typing import Any, Optional

from stalepool.settings import Settings
from stalepool.wire import RawSocket

#: bytes of body up to which a request is small: well within the 64 KiB that a Linux peer's kernel
#: takes unless it was told otherwise
SMALL_BODY = 16 * 1024

#: the user timeout is not lowered further for a caller in a hurry: retransmission needs some tries
LOWEST_USER_TIMEOUT_S = 3.0

_TCP_USER_TIMEOUT = getattr(_socket, "TCP_USER_TIMEOUT", None)  # Linux


def read_limit_s(timeout: Any) -> Optional[float]:
    """How long the caller of an open connection waits for an answer; None without a limit.

    :param timeout: ``urllib3.util.Timeout``, of 1.26 or 2.x; a plain number, or None.
    """
    limits = (
        getattr(timeout, "total", None),
        getattr(timeout, "_read", timeout),
    )
    # what is no number is urllib3's mark for "the socket module's default"
    known = [limit for limit in limits if isinstance(limit, (int, float))]
    if not known and limits[1] is not None:
        return _socket.getdefaulttimeout()
    return min(known, default=None)


def shortened(timeout: Any, left_s: Optional[float]) -> Any:
    """A ``Timeout`` like the caller's that ends no later than ``left_s`` seconds from its start."""
    if left_s is None:
        return timeout
    return type(timeout)(connect=timeout._connect, read=timeout._read, total=left_s)


def wanted_user_timeout_ms(
    settings: Settings, is_small: bool, is_repeatable: bool, limit_s: Optional[float]
) -> int:
    """The TCP_USER_TIMEOUT for a request, in ms; 0 leaves it to the kernel.

    :param is_small: see :func:`small_size`.
    :param is_repeatable: whether the request would be replayed: then it has to fail early enough
        for a second try to fit into the caller's patience.
    :param limit_s: that patience, see :func:`read_limit_s`.
    """
    timeout_s = settings.user_timeout_s
    if timeout_s is None or not is_small:
        return 0
    if is_repeatable and limit_s is not None and limit_s < 2 * timeout_s:
        timeout_s = min(timeout_s, max(LOWEST_USER_TIMEOUT_S, limit_s / 2))
    return int(timeout_s * 1000)


def small_size(body: Any) -> Optional[int]:
    """A small body's size in bytes; None for one that is not small, or not known before it ends."""
    if body is None:
        return 0
    if not isinstance(body, (bytes, str)) or len(body) > SMALL_BODY:
        return None
    size = len(body if isinstance(body, bytes) else body.encode("utf-8", "replace"))
    return size if size <= SMALL_BODY else None


def user_timeout_ms(raw: RawSocket) -> Optional[int]:
    """What is set on a TCP socket now, in ms; None where there is no such option."""
    if _TCP_USER_TIMEOUT is None:
        return None
    try:
        return raw.getsockopt(_socket.IPPROTO_TCP, _TCP_USER_TIMEOUT)
    except OSError:  # not TCP, or a kernel before 2.6.37
        return None


def set_user_timeout_ms(raw: RawSocket, timeout_ms: int) -> None:
    """Set it; in force at once, for data in flight as well."""
    assert _TCP_USER_TIMEOUT is not None  # user_timeout_ms() has been asked
    raw.setsockopt(_socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, timeout_ms)
