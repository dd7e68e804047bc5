"""No byte of an answer has come: keep waiting, replay the request, or raise what reading raised."""

from __future__ import annotations

from http.client import RemoteDisconnected
from io import BytesIO
from typing import Any, Optional, Tuple

from stalepool import fallback
from stalepool.clock import monotonic, shorter
from stalepool.connection import replay
from stalepool.connection.fresh_socket import take
from stalepool.connection.request_rules import REFUSE_ONE_OF_TWO, may_be_replayed, status_of
from stalepool.connection.silence import Watch
from stalepool.connection.state import NOTHING_LEFT_S, Request
from stalepool.foreign import drop_frames, raise_again
from stalepool.sockets import failure
from stalepool.sockets.layers import clear_tls_errors

NO_ANSWER = "Remote end closed connection without response"  #: http.client's words

#: the first bytes of an answer, none at the end of the stream; and what reading has raised
Read = Tuple[bytes, Optional[BaseException]]


def recover(response: Any, request: Request, error: Optional[BaseException]) -> bytes:
    """After a read without an answer, keep waiting, replay, or raise the error.

    :param error: what reading raised; None if it found the end of the stream.
    :returns: the first bytes of an answer; empty: http.client's ``begin`` finds the end by itself.
    :raises: what reading raised, or the first error if a replay has failed.
    """
    watch = Watch(request)
    try:
        first, error = _wait_on(response, watch, error)
        clear_tls_errors(watch.sock, error)
        file = _after_an_answer(watch, first) if first else _after_an_end(watch, error)
        if first := _read_from(response, file) or first:
            drop_frames(error)
            return first
        if request.first_error is not None:
            replay.raise_the_first_error(request)
        if error is not None:
            raise_again(error)
    finally:
        watch.replay.close()
        del error  # its traceback holds this frame
        if request.wait_s is not None or request.is_replayed:
            restore_timeout(response, request)
    # http.client finds the end by itself; with pyOpenSSL a second read there is an SSLError
    ended, response.fp = response.fp, BytesIO()
    ended.close()  # by hand: the interpreter would lose what a signal handler raises in there
    return b""


@fallback.guarded("answer_failed")
def restore_timeout(response: Any, request: Request) -> None:
    """Set the caller's own timeout again on the socket that is read now."""
    response.fp.raw._sock.settimeout(request.timeout_s)
    request.wait_s = None


def _wait_on(response: Any, watch: Watch, error: Optional[BaseException]) -> Read:
    """Wait on while nothing but a timeout of ours has run out. Yields."""
    request, first = watch.request, b""
    since, limit_s = request.sent_at, request.wait_s
    try:
        while request.wait_s is not None and failure.has_run_out(error, since, limit_s):
            if request.left_s == NOTHING_LEFT_S:
                break
            drop_frames(error)
            # after a timeout the old file refuses to be read; the new one is made first, since it
            # keeps a socket open that another thread has closed
            timed_out, response.fp = response.fp, watch.sock.makefile("rb")
            timed_out.close()
            if first := _read_from(response, watch.look()):
                return first, None
            error, since, limit_s = None, monotonic(), shorter(watch.pause_s, request.left_s)
            watch.sock.settimeout(limit_s)
            try:
                first = response.fp.peek(1)
            except failure.socket_errors() as caught:
                error = caught
        return first, error
    finally:
        del error  # its traceback holds this frame


def _after_an_answer(watch: Watch, first: bytes) -> Any:
    """Await the answer to a replay, as long again, if the old one may be due to that. Yields.

    :returns: the file object of the fresh socket; None if the old answer is the caller's.
    """
    request, second = watch.request, watch.replay
    if not second.is_under_way or status_of(first) not in REFUSE_ONE_OF_TWO:
        return None
    return second.answer_beside(shorter(monotonic() - request.sent_at, request.left_s))


def _after_an_end(watch: Watch, error: Optional[BaseException]) -> Any:
    """Await the answer to a replay, which is sent now unless it has been. Yields.

    :returns: the file object of the fresh socket; None if there is no replay, or no answer to it.
    """
    request, second = watch.request, watch.replay
    if second.is_under_way:
        may_take = failure.has_ended(watch.sock, error)
    else:
        may_take = may_be_replayed(request, error) and second.open() and second.send()
    # taken at once, so that another thread's shutdown of the connection's socket ends the wait
    is_taken = may_take and take(request, second.sock)
    file = second.answer(request.left_s) if is_taken else None
    if file is not None:
        second.let_go()
        request.first_error = error or RemoteDisconnected(NO_ANSWER)
    return file


def _read_from(response: Any, file: Any) -> bytes:
    """Have the response read a replay's answer from its file object; return its first bytes."""
    if file is None:
        return b""
    old, response.fp = response.fp, file
    response.stalepool_replayed = True
    old.close()
    return bytes(file.peek(1))
