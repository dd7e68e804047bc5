"""The first byte of an answer is awaited; the request is sent again, or its error raised.

Takes the place of ``HTTPConnection.response_class`` with classes made of whatever is inherited at
the moment. A response finds its connection's state by the socket that it is made of, so that the
class may be kept on an instance, as botocore does, and holds no connection.
"""

from __future__ import annotations

import functools
from io import BufferedReader
from time import monotonic
from typing import Any, Callable, Dict, Optional

from stalepool import fallback, runtime, status
from stalepool.connection import connect, replay, request_rules, silence
from stalepool.connection.fresh_socket import shorter
from stalepool.connection.silence import Watch
from stalepool.connection.state import NOTHING_LEFT_S, WAITING, Request, State, by_id
from stalepool.sockets import failure
from stalepool.sockets.failure import socket_errors
from stalepool.sockets.layers import clear_tls_errors, timeout_of

SWITCHING_PROTOCOLS = 101  # RFC 9110, section 15.2.2
_CHALLENGES = {401: "WWW-Authenticate", 407: "Proxy-Authenticate"}

#: where an answer tells nothing by these, and has no Keep-Alive header, nothing is learnt from it
_TELLING = frozenset((SWITCHING_PROTOCOLS, *_CHALLENGES))


class Answer:
    """Mixed into the response class of one copy of http.client, or of whoever replaced it."""

    #: whether this answer came to a request that was sent once more
    stalepool_replayed = False

    fp: Any
    status: int
    headers: Any

    def begin(self) -> None:
        """Read the status line and the headers. Yields where the socket's reads do."""
        state = _begin_to_wait(self)
        request = None if state is None else state.request
        if state is None or request is None:
            super().begin()  # type: ignore[misc]
            return
        first, error = b"", None  # type: bytes, Optional[BaseException]
        try:
            try:
                first = self.fp.peek(1)
            except socket_errors() as caught:
                error = caught
            if not first:
                first = _recover(self, state, request, error)
            elif request.wait_s is not None:
                self.fp.raw._sock.settimeout(request.limit_s)
            super().begin()  # type: ignore[misc]
            if (
                not state.answers
                or request.first_error is not None
                or self.status in _TELLING
                or (b"eep-" in first or b"\r\n\r\n" not in first)  # Keep-Alive, or not all there
                or (b"pgrade" in request.sent[0] or b"uthorization" in request.sent[0])
            ):
                _learn(self, state, request)
            state.answered()
            request = None  # gone with its record
        except socket_errors() as caught:
            if first:
                replay.note_answer_began(state, request, caught)
            raise
        finally:
            if request is not None:
                if request.wait_s is not None and not first and error is None:  # not the socket's
                    _restore_timeout(self, request)
                request.is_over()
            error = None  # its traceback holds this frame
            if state.used_at >= status.due_at:  # answered, or failed on a new socket
                status.pass_by()


@fallback.guarded("answer_failed")
def _begin_to_wait(response: Answer) -> Optional[State]:
    """Lower the socket's timeout for the first wait; None: the answer is not looked after."""
    if not isinstance(response.fp, BufferedReader):
        return None
    sock = getattr(response.fp.raw, "_sock", None)
    state, installation = by_id(id(sock)), runtime.current
    if state is None or state.request is None or state.sock() is not sock or installation is None:
        return None
    request = state.request
    conn = request.conn()
    if conn is None or conn.sock is not sock:
        return None
    state.phase, request.sent_at = WAITING, monotonic()
    request.limit_s = timeout_of(sock)
    request.wait_s = wait_s = silence.first_wait_s(request, installation)
    if wait_s is not None:
        sock.settimeout(wait_s)
    return state


def _recover(
    response: Answer, state: State, request: Request, error: Optional[BaseException]
) -> bytes:
    """After a first wait that brought nothing: wait on, send again, or raise the error.

    :param error: what reading raised; None where it found the end.
    :returns: the first bytes of an answer; empty at an end that urllib3's ``begin`` is to find.
    :raises: what reading raised, or the first error where a replay had failed.
    """
    # what is read from; another thread may close the connection meanwhile
    conn: Any = request.conn()
    sock = response.fp.raw._sock
    watch: Optional[Watch] = None
    since, pause_s = request.sent_at, request.wait_s
    try:
        while request.wait_s is not None and failure.has_run_out(error, since, pause_s):
            watch = watch or Watch(conn, state, request)
            watch.waited_s += pause_s or 0.0
            if watch.left_s == NOTHING_LEFT_S:
                break
            if _is_answered_elsewhere(response, watch, sock):
                return bytes(response.fp.peek(1))
            error, since, pause_s = None, monotonic(), timeout_of(sock)
            try:
                first: bytes = response.fp.peek(1)
                if first:
                    return first
            except socket_errors() as caught:
                error = caught
        clear_tls_errors(sock, error)
        if conn.sock is sock and _refusal(conn, state, error) is None and _replays(response, state):
            return bytes(response.fp.peek(1))
        if request.first_error is not None:
            replay.note_outcome(state, request, "failed")
            fallback.raise_again(request.first_error)
        if error is not None:
            fallback.raise_again(error)
        return b""
    finally:
        del error  # its traceback holds this frame
        if watch is not None:
            watch.close()
        if request.wait_s is not None or request.is_replayed:
            _restore_timeout(response, request)


@fallback.guarded("answer_failed")
def _restore_timeout(response: Answer, request: Request) -> None:
    """Set the caller's own timeout again on the socket that is read from by now."""
    response.fp.raw._sock.settimeout(request.limit_s)


def _is_answered_elsewhere(response: Answer, watch: Watch, sock: Any) -> bool:
    """After a pause in which nothing came: tell whether the request was sent again, and answered.

    If not, the socket and the response are ready for the next pause.
    """
    _renew_file(response, sock)
    if watch.conn.sock is not sock:
        watch.pause_s = None  # another thread has closed the connection: read on, as stock would
    elif watch.is_dead():
        if _replays(response, watch.state, watch.take_fresh(), has_ended=False):
            return True
        watch.pause_s = None  # nobody's error: the old connection may still answer
    sock.settimeout(shorter(watch.pause_s, watch.left_s))
    return False


@fallback.guarded("answer_failed")
def _renew_file(response: Answer, sock: Any) -> None:
    """Give the response a file object that may be read: one that has timed out refuses to be.

    The new one is made before the old one is closed, which would close a socket that nobody holds.
    """
    timed_out, response.fp = response.fp, sock.makefile("rb")
    timed_out.close()


@fallback.guarded("replay_failed", default="replay_failed")
def _refusal(conn: Any, state: State, error: Optional[BaseException]) -> Optional[str]:
    installation = runtime.current
    return "" if installation is None else replay.refusal(conn, state, error, installation)


def _replays(response: Answer, state: State, fresh: Any = None, has_ended: bool = True) -> bool:
    """Send the request again, and have the response read the answer to that. Yields."""
    file = replay.on_fresh_socket(state, fresh, has_ended)
    if file is None:
        return False
    old, response.fp = response.fp, file
    old.close()
    response.stalepool_replayed = True
    return True


@fallback.guarded("answer_failed")
def _learn(response: Answer, state: State, request: Request) -> None:
    """Take from an answer what the connection's next request needs to know."""
    if request.first_error is not None:
        response.stalepool_replayed = True
        replay.note_outcome(state, request, "ok")
    if not state.answers:
        connect.note_answer(request.conn())
    hint = response.headers.get("keep-alive")
    state.learn(
        idle_limit_s=None if hint is None else request_rules.keep_alive_hint_s(hint),
        is_bound=request_rules.speaks_an_identity(request.head)
        or request_rules.offers_an_identity(_challenges(response)),
        is_upgraded=response.status == SWITCHING_PROTOCOLS
        or request_rules.asks_for_an_upgrade(request.head),
    )


def _challenges(response: Answer) -> str:
    name = _CHALLENGES.get(response.status)
    return ", ".join(response.headers.get_all(name) or ()) if name else ""


def make_response_class(original: Callable[[Any, Any], Any], module: Any) -> Any:
    """Return the descriptor that takes the place of the attribute.

    :param original: returns the class that the attribute would be, for (instance, owner).
    """
    made: Dict[int, Any] = {}  # id() of a class -> the class made of it, which keeps it alive

    class ResponseClass:
        """A plain class, whoever asks; no data descriptor, so an instance may have its own."""

        def __get__(self, conn: Any, owner: Any = None) -> Any:
            base = original(conn, owner)
            found = made.get(id(base))  # by identity: wrappers copy equality
            return found or _made_of(base, made)

    return ResponseClass()


def _made_of(base: Any, made: Dict[int, Any]) -> Any:
    if not issubclass(type(base), type):  # a function, or a wrapper around a class
        return functools.partial(_made_by, base, made)
    return _class_of(base, made)


def _class_of(base: Any, made: Dict[int, Any]) -> Any:
    """Return a class that is the base and an :class:`Answer`."""
    if issubclass(base, Answer):
        return base
    namespace = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    return made.setdefault(id(base), type(base.__name__, (Answer, base), namespace))


def _made_by(make: Any, made: Dict[int, Any], *args: Any, **kwargs: Any) -> Any:
    """Call what somebody put in the place of the class, and look after what it makes."""
    response = make(*args, **kwargs)
    if not isinstance(response, Answer):
        try:
            response.__class__ = _class_of(type(response), made)
        except TypeError:  # a mock, a class with slots: read by urllib3 alone
            pass
    return response


def make_replayed(original: Any, module: Any) -> Any:
    """Return the descriptor that urllib3's response gets: it asks the response it was made of."""

    class Replayed:
        __wrapped__ = original

        def __get__(self, response: Any, owner: Any = None) -> bool:
            made_of = getattr(response, "_original_response", None)
            return bool(getattr(made_of, "stalepool_replayed", False))

    return Replayed()
