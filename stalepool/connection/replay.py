"""Replay: the recorded bytes of a lost request are sent once more, on a fresh socket.

A replay happens inside one of urllib3's attempts. If it fails, the caller gets the first error, or
waits on if there is none.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Iterator, Optional

from stalepool import fallback, runtime
from stalepool.clock import monotonic
from stalepool.connection import fresh_socket, request_rules
from stalepool.connection.connect import shorter
from stalepool.connection.request_rules import DEATH_RULES, REPLAY_RULES, Attempt
from stalepool.connection.state import Request, State
from stalepool.sockets import failure
from stalepool.sockets.layers import clear_tls_errors, timeout_of

_logger = logging.getLogger("stalepool.replay")


@fallback.guarded("replay_failed", default=False)
def is_permitted(conn: Any, state: State, error: Optional[BaseException]) -> bool:
    """Tell whether a failed request may be replayed; if not, count and log why.

    Call it while the socket is open. In audit mode no request may be replayed.

    :param error: what was raised; None where reading the answer found the end.
    """
    request, settings = state.request, runtime.current
    if request is None or settings is None:
        return False
    attempt = Attempt(settings, state, request, conn.sock, error)
    refusal = request_rules.first_refusal((*DEATH_RULES, *REPLAY_RULES), attempt)
    if request.moved_for is not None and refusal != "answer_began":
        state.origin.knowledge.stop_moves()
    if refusal == "not_ended":
        return False  # no failure of the connection: the caller's timeout, for example
    request.is_silent = failure.is_silent_end(error)
    if refusal is None and not settings.is_audit:
        return True
    counted = ("replays", "would") if refusal is None else ("replays_refused", refusal)
    state.origin.count_end(*counted, request.is_silent)
    fallback.log(
        _logger,
        logging.DEBUG,
        "%s: %s failed with %r, not sent once more: %s",
        *(state.origin.name, str(request.method, "latin-1"), error, refusal or "audit"),
    )
    return False


def after_failed_send(conn: Any, state: State, error: BaseException) -> bool:
    """After a failed send, send the record on a fresh socket. False: raise the error."""
    request, sock = state.request, conn.sock
    if request is None or sock is None or not is_permitted(conn, state, error):
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
    """Send the record, and wait for the answer's first byte. Yields.

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
        file = _first_byte(fresh, request)
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
        limit_s = shorter(longest_s, request.connect_timeout, request.left_s)
        fresh = fresh_socket.open_like(conn, limit_s)
        if fresh is None:
            return None
    try:
        with _only_a_deadline_is_raised(fresh, request):
            # else another thread closed it, or the answer came while the fresh one was opened
            if conn.sock is sock and not failure.answer_has_begun(sock):
                for data in request.sent:
                    fresh.settimeout(request.left_s)
                    fresh.sendall(data)
                fresh.settimeout(request.left_s)
                is_sent = True
    finally:
        if not is_sent:
            fresh.close()
    return fresh if is_sent else None


def _first_byte(fresh: Any, request: Request) -> Any:
    """Return the file object of a socket on which an answer has begun. Yields.

    :returns: if no answer has begun: None, and the socket is closed.
    :raises: the caller's deadline.
    """
    file, has_begun = fresh.makefile("rb"), False
    try:
        with _only_a_deadline_is_raised(fresh, request):
            has_begun = bool(file.peek(1))
    finally:
        if not has_begun:
            fresh_socket.drop_unacknowledged(fresh)
            file.close()
            fresh.close()
    return file if has_begun else None


@contextlib.contextmanager
def _only_a_deadline_is_raised(fresh: Any, request: Request) -> Iterator[None]:
    """Context manager that drops the errors of a fresh socket, but not the caller's deadline."""
    since, limit_s = monotonic(), request.left_s
    try:
        yield
    except failure.socket_errors() as error:
        clear_tls_errors(fresh, error)
        if failure.is_a_deadline(error, since, limit_s):
            raise


def note_outcome(state: State, request: Request, outcome: str) -> None:
    """Count what became of a replay, and log it."""
    state.origin.count_end("replays", outcome, request.is_silent)
    fallback.log(
        *(_logger, logging.INFO if outcome == "ok" else logging.DEBUG),
        "%s: %s was sent once more on a fresh connection: %s",
        *(state.origin.name, str(request.method, "latin-1"), outcome),
    )
