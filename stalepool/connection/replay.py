"""Replay: the recorded bytes of a lost request are sent once more, on a fresh socket.

A replay happens inside one of urllib3's attempts. So urllib3's ``Retry``, the library requests and
keystoneauth1 count one attempt, whether the replay succeeds or not. If the replay fails, the caller
gets the first error, or waits on if there is none.
"""

from __future__ import annotations

import logging
from typing import Any, Optional

from stalepool import fallback
from stalepool.clock import monotonic
from stalepool.connection import fresh_socket, request_rules
from stalepool.connection.request_rules import Attempt
from stalepool.connection.state import SENDING, Request, State
from stalepool.settings import Settings
from stalepool.sockets import failure
from stalepool.sockets.layers import clear_tls_errors, timeout_of

_logger = logging.getLogger("stalepool.replay")


@fallback.guarded("replay_failed", default="replay_failed")
def refuse(
    conn: Any, state: State, error: Optional[BaseException], settings: Optional[Settings]
) -> Optional[str]:
    """Return why a failed request is not replayed, None if it may be; count and log the refusal.

    Call it while the socket is open. In audit mode no request may be replayed.

    :param error: what was raised; None where reading the answer found the end.
    """
    request = state.request
    if request is None or settings is None:
        return "no_request"
    if request.is_past_replay:
        return "past_replay"  # a failed send was counted then
    if state.phase is SENDING and failure.answer_has_begun(conn.sock):
        state.origin.count_end("replays_refused", "answer_began", is_silent=False)
        return "answer_began"
    attempt = Attempt(settings, state, request, conn.sock, error)
    found = request_rules.first_refusal(request_rules.DEATH_RULES, attempt)
    if found == "not_ended":
        return found  # no failure of the connection: the caller's timeout, for example
    found = found or request_rules.first_refusal(request_rules.REPLAY_RULES, attempt)
    request.is_silent = failure.is_silent_end(error)
    if request.moved_for is not None:
        state.origin.knowledge.stop_moves()
    if found is None and not settings.is_audit:
        return None
    counted = ("replays", "would") if found is None else ("replays_refused", found)
    state.origin.count_end(*counted, request.is_silent)
    fallback.log(
        _logger,
        logging.DEBUG,
        "%s: %s failed with %r, not sent once more: %s",
        *(state.origin.name, str(request.method, "latin-1"), error, found or "audit"),
    )
    return found or "audit"


def after_failed_send(conn: Any, state: State, error: BaseException, settings: Settings) -> bool:
    """After a failed send, send the record on a fresh socket. False: raise the error."""
    request, sock = state.request, conn.sock
    if request is None or sock is None or refuse(conn, state, error, settings) is not None:
        return False
    clear_tls_errors(sock, error)
    request.limit_s = timeout_of(sock)
    fresh = _send_record(conn, state, request)
    if fresh is None or not fresh_socket.take(conn, state, sock, fresh):
        note_outcome(state, request, "failed")
        return False
    fresh.settimeout(request.limit_s)
    request.first_error = error
    return True


def on_fresh_socket(state: State, fresh: Any, has_ended: bool) -> Any:
    """Send the record, and wait for the answer's first byte.

    :param fresh: a socket that is open already; None: open one.
    :param has_ended: True: close the old socket once the record is sent, so that a shutdown of the
        connection's socket ends the wait. False: its peer is silent; keep it, to read it later.
    :returns: the file object of the fresh socket, now the connection's; None: the replay failed.
    """
    request = state.request
    conn: Any = None if request is None else request.conn()
    if request is None or conn is None:
        if fresh is not None:  # an install has dropped the request meanwhile
            fresh.close()
        return None
    request.is_silent = request.is_silent or not has_ended
    # not conn.sock: another thread may have closed the connection
    old, file = state.sock(), None  # type: Any, Any
    fresh = _send_record(conn, state, request, fresh)
    if fresh is not None and (not has_ended or fresh_socket.take(conn, state, old, fresh)):
        file = _first_byte(fresh)
        if file is not None and not has_ended and not fresh_socket.take(conn, state, old, fresh):
            file.close()
            file = None
    note_outcome(state, request, "failed" if file is None else "ok")
    return file


def _send_record(conn: Any, state: State, request: Request, fresh: Any = None) -> Any:
    """Return a fresh socket to which the record was sent, None if that failed. Yields.

    :raises: the caller's deadline.
    """
    request.is_replayed = True
    sock, is_sent = state.sock(), False
    if fresh is None:
        # the name is looked up, as for urllib3's own retry: the node may be gone
        longest_s = fresh_socket.BESIDE_S if request.is_silent else fresh_socket.AFTER_END_S
        limit_s = fresh_socket.shorter(longest_s, request.connect_timeout, request.left_s)
        fresh = fresh_socket.open_like(conn, limit_s)
        if fresh is None:
            return None
    since, limit_s = monotonic(), request.left_s
    try:
        if conn.sock is not sock or failure.answer_has_begun(sock):
            return None  # another thread closed it, or the answer came while the fresh one opened
        for data in request.sent:
            since, limit_s = monotonic(), request.left_s
            fresh.settimeout(limit_s)
            fresh.sendall(data)
        fresh.settimeout(request.left_s)
        is_sent = True
        return fresh
    except failure.socket_errors() as error:
        clear_tls_errors(fresh, error)
        if failure.is_a_deadline(error, since, limit_s):
            raise
        return None
    finally:
        if not is_sent:
            fresh.close()


def _first_byte(fresh: Any) -> Any:
    """Return the file object of a socket on which an answer has begun. Yields.

    :returns: if no answer has begun: None, and the socket is closed.
    :raises: the caller's deadline.
    """
    file, since, limit_s = fresh.makefile("rb"), monotonic(), timeout_of(fresh)
    has_begun = False
    try:
        has_begun = bool(file.peek(1))
    except failure.socket_errors() as error:
        clear_tls_errors(fresh, error)
        if failure.is_a_deadline(error, since, limit_s):
            raise
    finally:
        if not has_begun:
            fresh_socket.drop_unacknowledged(fresh)
            file.close()
            fresh.close()
    return file if has_begun else None


def note_outcome(state: State, request: Request, outcome: str) -> None:
    """Count what became of a replay, and log it."""
    state.origin.count_end("replays", outcome, request.is_silent)
    fallback.log(
        *(_logger, logging.INFO if outcome == "ok" else logging.DEBUG),
        "%s: %s was sent once more on a fresh connection: %s",
        *(state.origin.name, str(request.method, "latin-1"), outcome),
    )
