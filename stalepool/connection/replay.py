"""Replay: the recorded bytes of a lost request are sent once more, on a fresh socket.

A replay happens inside one of urllib3's attempts. If it fails, the caller gets the first error, or
waits on if there is none.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
from typing import Any, FrozenSet, Iterator, Optional

from stalepool import fallback
from stalepool.clock import monotonic
from stalepool.connection import fresh_socket
from stalepool.connection.connect import shorter
from stalepool.connection.request import NOTHING_LEFT_S, Request
from stalepool.connection.request_rules import (
    CONFLICT,
    DEATH_RULES,
    REFUSALS,
    REPLAY_RULES,
    TOO_MANY,
    first_refusal,
    has_a_key,
)
from stalepool.foreign import is_foreign
from stalepool.sockets import failure
from stalepool.sockets.layers import clear_tls_errors, timeout_of

#: seconds for each operation (connect, tunnel, handshake) of a replay: a SYN, one retransmission
REPLAY_S = 2.0
LOOK_BACK_EVERY_S = 0.5  #: how often the old socket of a silent peer is looked at in a replay

_logger = logging.getLogger("stalepool.replay")


@fallback.guarded("replay_failed", default=False)
def is_permitted(request: Request, error: Optional[BaseException]) -> bool:
    """Tell whether a failed request may be replayed; if not, count and log why.

    Call it while the socket is open. In audit mode no request may be replayed.

    :param error: what was raised; None where reading the answer found the end.
    """
    if not request.is_followed:
        return False
    origin = request.state.origin
    refusal = first_refusal(DEATH_RULES, request, error) or first_refusal(REPLAY_RULES, request)
    if request.moved_for is not None and refusal != "answer_began":
        origin.knowledge.stop_moves()
    if refusal == "not_ended":
        return False  # no failure of the connection: the caller's timeout, for example
    request.is_silent = failure.is_silent_end(error)
    if refusal is None and not request.settings.is_audit:
        return True
    counted = ("replays", "would") if refusal is None else ("replays_refused", refusal)
    origin.count_end(*counted, request.is_silent)
    fallback.log(
        _logger,
        logging.DEBUG,
        "%s: %s failed with %r, not sent once more: %s",
        *(origin.name, str(request.method, "latin-1"), error, refusal or "audit"),
    )
    return False


def after_failed_send(request: Request, error: BaseException) -> bool:
    """After a failed send, send the record on a fresh socket. False: raise the error."""
    sock = request.state.sock()
    if not is_permitted(request, error):
        return False
    clear_tls_errors(sock, error)
    request.limit_s = timeout_of(sock)
    fresh = _open(request)
    if not (_send_record(request, fresh) and fresh_socket.take(request, fresh)):
        note_outcome(request, "failed")
        return False
    fresh.settimeout(request.limit_s)
    request.first_error = error
    return True


def instead(request: Request) -> Any:
    """Send the record on a fresh socket, since the connection has ended. Yields.

    The old socket is closed once the record is sent, so that a shutdown of the connection's socket
    ends the wait.

    :returns: the file object of the fresh socket, now the connection's; None: the replay failed.
    """
    file, fresh = None, _open(request)
    if _send_record(request, fresh) and fresh_socket.take(request, fresh):
        file = _first_answer(request, fresh)
    note_outcome(request, "failed" if file is None else "ok")
    return file


def beside(request: Request, fresh: Any) -> Any:
    """Send the record on a fresh socket, and wait for an answer there and on the old one. Yields.

    :returns: the file object of the socket that is answered. If it is the fresh one, that is the
        connection's now. None: the replay failed; the old connection may still be answered.
    """
    request.is_silent, old = True, request.state.sock()
    file: Any = None
    if _send_record(request, fresh, REPLAY_S):  # meanwhile the old one is not read
        file = _first_answer(request, fresh, old)
    is_ok = file is not None and file.raw._sock is fresh
    if is_ok and not fresh_socket.take(request, fresh):
        file.close()
        file, is_ok = None, False
    note_outcome(request, "ok" if is_ok else "failed", is_gone=is_ok)
    return file


def _open(request: Request) -> Any:
    """Open a fresh socket; None if that fails. Yields."""
    # the name is looked up, as for urllib3's own retry: the node may be gone
    limit_s = shorter(REPLAY_S, request.connect_timeout, request.left_s)
    return fresh_socket.open_like(request, limit_s)


def _send_record(request: Request, fresh: Any, longest_s: Optional[float] = None) -> bool:
    """Send the record on a fresh socket, if there is one. False if that failed. Yields.

    :param longest_s: seconds that it may take; and no longer than is left of the caller's limit.
    :raises: the caller's deadline.
    """
    request.is_replayed = True
    if fresh is None:
        return False
    began, limit_s = monotonic(), shorter(longest_s, request.left_s)
    with _closed_on_failure(fresh, limit_s) as on_failure:
        # else another thread closed it, or the answer came while the fresh one was opened
        if request.is_followed and not failure.answer_has_begun(request.state.sock()):
            for data in request.sent:
                left_s = None if limit_s is None else began + limit_s - monotonic()
                fresh.settimeout(None if left_s is None else max(NOTHING_LEFT_S, left_s))
                fresh.sendall(data)
            fresh.settimeout(request.left_s)
            on_failure.pop_all()
            return True
    return False


def _first_answer(request: Request, fresh: Any, old: Any = None) -> Any:
    """Return the file object of the socket that is answered first; None if none is. Yields.

    If that is a refusal of one of two connections, the other one is waited for: if the fresh one is
    refused, for ever, as in stock; if the old one is, as long again. The fresh socket is closed,
    unless it is the one.

    :param old: one on which an answer may still come, since its peer was only silent; or None.
    :raises: the caller's deadline.
    """
    begun, until = None, float("inf")  # the old one's file object; when a refusal there counts
    with contextlib.ExitStack() as unused:
        with _closed_on_failure(fresh, request.left_s) as on_failure:
            on_failure.callback(fresh_socket.abandon, fresh)
            while not failure.is_closed_by_us(old) and monotonic() < until:
                limit_s = shorter(None if old is None else LOOK_BACK_EVERY_S, request.left_s)
                if begun is None and failure.answer_has_begun(old):
                    begun = _file_of(old, limit_s)
                    if begun is not None:
                        unused.callback(begun.close)
                        if not _is_refusal(request, begun, TOO_MANY):
                            break
                        until = 2 * monotonic() - request.sent_at
                file = _file_of(fresh, limit_s)
                may_wait = old is not None and begun is None
                if file is not None and may_wait and _is_refusal(request, file, REFUSALS):
                    file.close()
                    break
                if file is not None:
                    on_failure.pop_all()
                    return file
                if request.left_s == NOTHING_LEFT_S:
                    break
        unused.pop_all()
        return begun


def _is_refusal(request: Request, file: Any, statuses: FrozenSet[int]) -> bool:
    """Tell whether an answer may say no more than that the client has another connection."""
    digits = file.peek(1)[9:12]  # of "HTTP/1.1 503"
    status = int(digits) if digits.isdigit() else 0
    is_in_work = status == CONFLICT and has_a_key(request)
    return status in statuses or is_in_work


def _file_of(sock: Any, limit_s: Optional[float]) -> Any:
    """Return the file object of a socket once an answer begins there; None if none does in time.

    :raises: what reading raises; RemoteDisconnected at the end of the stream.
    """
    sock.settimeout(limit_s)
    with contextlib.ExitStack() as until_then:
        file, since = until_then.enter_context(sock.makefile("rb")), monotonic()
        try:
            if not file.peek(1):
                raise http.client.RemoteDisconnected("no answer")
        except failure.socket_errors() as error:
            if not failure.has_run_out(error, since, limit_s):
                raise
            return None
        until_then.pop_all()
        return file


@contextlib.contextmanager
def _closed_on_failure(fresh: Any, limit_s: Optional[float]) -> Iterator[contextlib.ExitStack]:
    """Context manager that drops the errors of a fresh socket, but not the caller's deadline.

    Yields what closes the socket in the end, unless ``pop_all()`` is called.

    :param limit_s: seconds after which a timeout is the socket's own.
    """
    since = monotonic()
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(fresh.close)
        try:
            yield on_failure
        except failure.socket_errors() as error:
            clear_tls_errors(fresh, error)
            if is_foreign(error) and not failure.has_run_out(error, since, limit_s):
                raise


def note_outcome(request: Request, outcome: str, is_gone: bool = True) -> None:
    """Count what became of a replay, and of its old connection, and log it."""
    origin = request.state.origin
    if is_gone:
        origin.count_end("replays", outcome, request.is_silent)
    else:
        origin.count("replays", outcome)
    fallback.log(
        *(_logger, logging.INFO if outcome == "ok" else logging.DEBUG),
        "%s: %s was sent once more on a fresh connection: %s",
        *(origin.name, str(request.method, "latin-1"), outcome),
    )
