"""A connect that was refused is tried again for a moment: a load balancer is being restarted.

A refused or reset *connect* carried no request, so this is safe for every method. It is done only
towards a peer that has answered this process before, and once an outage: all requests share one
window, and when that is over they fail at once until the peer answers again. Otherwise an outage
would be multiplied by every caller's own retries.
"""

from __future__ import annotations

import errno
import random
from time import monotonic
from typing import Any, Callable, Dict, Iterator, Tuple

from stalepool import patience, stats
from stalepool.pooled import origin_of

Peer = Tuple[str, int]

_MAX_PEERS = 1024
_REFUSALS = frozenset((errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED))

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5
#: the last try, at the window's very end
SHORTEST_TRY_S = 0.01

_answered: Dict[Peer, bool] = {}
#: monotonic time of an outage's first refused connect
_outages: Dict[Peer, float] = {}


def make_pause(connectionpool: Any) -> Callable[[float], None]:
    """The sleep of one copy of urllib3: it yields exactly where that copy's sockets do.

    A green copy made by eventlet's ``import_patched`` in an unpatched process would otherwise block
    its hub.
    """

    def pause(seconds: float) -> None:
        connectionpool.Retry.sleep.__globals__["time"].sleep(seconds)

    return pause


def note_answer(conn: Any) -> None:
    """The connection's peer has answered a request: it is known, and any outage is over."""
    peer = _peer_of(conn)
    _outages.pop(peer, None)
    if len(_answered) < _MAX_PEERS:
        _answered[peer] = True


def connect(
    try_once: Callable[[], Any], conn: Any, window_s: float, pause: Callable[[float], None]
) -> Any:
    """Open a connection, trying again within the outage's window if it is refused.

    :param try_once: opens it, taking its time limit from ``conn.timeout``.
    :param window_s: how long an outage is waited for; 0 is not at all.
    :param pause: sleeps, yielding where the caller's threads are green.
    :raises: what the first try raised if the window closed; never past the connect timeout.
    """
    began = monotonic()
    try:
        return try_once()
    except Exception as error:
        if not (window_s > 0 and is_refusal(error) and _peer_of(conn) in _answered):
            raise
        ends = _end_of_window(conn, began, window_s)
        if monotonic() >= ends:
            raise
        first = error
    timeout, outcome = conn.timeout, "failed"
    try:
        for pause_s in _pauses(ends):
            pause(pause_s)
            conn.timeout = max(SHORTEST_TRY_S, ends - monotonic())
            try:
                sock = try_once()
            except Exception as error:
                if not is_refusal(error) and monotonic() < ends:
                    raise
            else:
                # a TLS handshake and the sending of the request are not the window's to limit
                sock.settimeout(patience.read_limit_s(timeout))
                outcome = "ok"
                return sock
        raise first
    finally:
        conn.timeout = timeout
        stats.origin(origin_of(conn)).count("reconnects", outcome)
        del first  # its traceback holds this frame


def is_refusal(error: BaseException) -> bool:
    """Whether a connect was refused or reset; urllib3 1.26 keeps the errno only as context."""
    for cause in (error, error.__cause__, error.__context__):
        if getattr(cause, "errno", None) in _REFUSALS:
            return True
    return False


def _end_of_window(conn: Any, began: float, window_s: float) -> float:
    """When to give up: the outage's window is over, or the caller's connect timeout is."""
    outage_began = _outages.setdefault(_peer_of(conn), began)
    if outage_began is began:
        stats.origin(origin_of(conn)).count("reconnects", "windows")
    limit_s = patience.read_limit_s(conn.timeout)
    window_ends = outage_began + window_s
    return window_ends if limit_s is None else min(window_ends, began + limit_s)


def _pauses(ends: float) -> Iterator[float]:
    """Growing pauses in seconds, with jitter, so that many callers do not knock in step."""
    pause_s = FIRST_PAUSE_S
    while True:
        left_s = ends - monotonic()
        if left_s <= 0:
            return
        yield min(left_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # not a secret
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _peer_of(conn: Any) -> Peer:
    return conn.host, conn.port
