"""A connect that was refused is tried again for a moment: a load balancer is being restarted.

A refused or reset *connect* carried no request, so this is safe for every method. It is done only
towards a peer that has answered this process before, and once an outage: all requests share one
window, and when that is over they fail at once until the peer answers again. Otherwise an outage
would be multiplied by every caller's own retries.
"""

from __future__ import annotations

import errno
import os
import random
from time import monotonic
from typing import Any, Callable, Dict, Iterator, Optional, Tuple, TypeVar

from stalepool import errors, patience, stats
from stalepool.pooled import Pooled, origin_of

Peer = Tuple[str, int]
T = TypeVar("T")

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
    its hub. Where that sleep cannot be found, or somebody has put a mock in its place, the pause
    takes no time, and whoever waits in a loop has to give up on that.
    """

    def pause(seconds: float) -> None:
        time = _time_of(connectionpool)
        if time is not None:
            time.sleep(seconds)

    return pause


def _time_of(connectionpool: Any) -> Any:
    """The ``time`` module that a copy's retries sleep with; None where it cannot be found.

    By the functions of its ``Retry``, any of which may be mocked: the copy's own modules need not
    be in ``sys.modules``.
    """
    for cls in getattr(connectionpool.Retry, "__mro__", ()):
        for function in vars(cls).values():
            names = getattr(function, "__globals__", {})
            # one of a mock's or a decorator's making is at home in another module
            if names.get("__name__") == cls.__module__ and "time" in names:
                return names["time"]
    return None


def note_answer(conn: Any, was_reused: bool) -> None:
    """The connection's peer has answered a request: it is known from now on.

    Where the connection was opened for that request, any outage is over, too. A reused one tells
    nothing of that: the listener may be gone, and what it held live on.
    """
    peer = _peer_of(conn)
    _answered.pop(peer, None)
    _keep(_answered, peer, True)
    if not was_reused:
        _outages.pop(peer, None)


def connect(
    try_once: Callable[[], Any], conn: Any, window_s: float, pause: Callable[[float], None]
) -> Any:
    """Open a connection, trying again within the outage's window if it is refused.

    :param try_once: opens it, taking its time limit from ``conn.timeout``.
    :param window_s: how long an outage is waited for; 0 is not at all.
    :param pause: sleeps, yielding where the caller's threads are green.
    :raises: what the first try raised if the window closed; never past the connect timeout. What
        does not come from a try, such as a timer's exception, as it is and when it comes.
    """
    began, handled = monotonic(), errors.being_handled()
    try:
        return try_once()
    except Exception as error:
        if not (window_s > 0 and is_refusal(error, handled) and _has_answered(conn)):
            raise
        ends = _end_of_window(conn, began, window_s)
        if monotonic() >= ends:
            raise
        first = error
    timeout, outcome = conn.timeout, "failed"
    try:
        for pause_s in _pauses(ends):
            paused_at = monotonic()
            pause(pause_s)
            if monotonic() - paused_at < pause_s / 2:
                break  # somebody's mock: it would be tried as often as the machine can
            conn.timeout = max(SHORTEST_TRY_S, ends - monotonic())
            try:
                sock = try_once()
            except Exception as error:
                is_over = monotonic() >= ends and errors.is_of_the_try(error)
                if not is_over and not is_refusal(error, handled):
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


def is_refusal(error: BaseException, handled: Optional[BaseException] = None) -> bool:
    """Whether a connect was refused or reset; urllib3 1.26 keeps the errno only as context.

    :param handled: what the caller was handling meanwhile, see :func:`errors.chain`.
    """
    return errors.is_of_the_try(error) and any(
        getattr(link, "errno", None) in _REFUSALS for link in errors.chain(error, handled)[:2]
    )


def _has_answered(conn: Any) -> bool:
    """Whether the peer is known to have answered, or this very connection has been in a pool."""
    return _peer_of(conn) in _answered or isinstance(getattr(conn, "_stalepool", None), Pooled)


def _end_of_window(conn: Any, began: float, window_s: float) -> float:
    """When to give up: the outage's window is over, or the caller's connect timeout is."""
    outage_began = _keep(_outages, _peer_of(conn), began)
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


def _keep(memory: Dict[Peer, T], peer: Peer, value: T) -> T:
    """What is remembered of a peer: the value, unless there is one. The oldest peers make room."""
    kept = memory.setdefault(peer, value)
    if len(memory) > _MAX_PEERS:
        for oldest in list(memory)[:-_MAX_PEERS]:
            memory.pop(oldest, None)
    return kept


def _after_fork_in_child() -> None:
    """The parent's windows are not the child's, which has waited for nobody yet."""
    global _outages
    _outages = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
