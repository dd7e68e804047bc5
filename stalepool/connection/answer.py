"""The answer to a request: await its first byte, read its head, learn from it.

Replaces ``HTTPConnection.response_class``. Each access looks up the class that urllib3 alone would
use, and returns a subclass of it that is an :class:`Answer`.
"""

from __future__ import annotations

import functools
from abc import ABCMeta
from io import BufferedReader
from typing import Any, Callable, Optional

from stalepool import fallback, stats, status
from stalepool.clock import monotonic
from stalepool.connection import move, replay, request_rules
from stalepool.connection.origins import peer_of
from stalepool.connection.recover import recover, restore_timeout
from stalepool.connection.silence import first_wait_s
from stalepool.connection.state import WAITING, Request, by_id
from stalepool.sockets.failure import socket_errors
from stalepool.sockets.layers import layers_of, timeout_of

SWITCHING_PROTOCOLS = 101  # RFC 9110, section 15.2.2
MOST_CLASSES = 64  #: response classes that are kept; somebody may set a new one for each test
_CHALLENGES = {401: "WWW-Authenticate", 407: "Proxy-Authenticate"}
#: statuses of answers that say something of the connection, as a Keep-Alive header does
_TELLING = frozenset((SWITCHING_PROTOCOLS, *_CHALLENGES))


class Answer:
    """Mixin for http.client's response class, or for a subclass that somebody put in its place."""

    stalepool_replayed: bool  #: True for the answer to a replay; not set otherwise
    fp: Any
    status: int
    headers: Any

    def begin(self, *args: Any, **options: Any) -> None:
        """Read the status line and the headers. Yields where the socket's reads do."""
        request = _begin_to_wait(self)
        if request is None:
            super().begin(*args, **options)  # type: ignore[misc]
            return
        state = request.state
        first, error = b"", None  # type: bytes, Optional[BaseException]
        try:
            try:
                first = self.fp.peek(1)
            except socket_errors() as caught:
                error = caught
            if not first:
                first = recover(self, request, error)
            elif request.wait_s is not None:
                restore_timeout(self, request)
            super().begin(*args, **options)  # type: ignore[misc]
            if (
                not state.answers  # so it is after a replay, too
                or self.status in _TELLING
                # Keep-Alive, in the head alone; "in", or headers.get(), costs more
                or first.find(b"live:", 0, first.find(b"\r\n\r\n")) >= 0
                or (head := request.head).find(b"upgrade") >= 0
                or (head.find(b"authorization") >= 0 and request_rules.speaks_an_identity(head))
            ):
                if request.first_error is not None and not request_rules.is_a_success(self.status):
                    replay.raise_the_first_error(request)
                _learn(self, request)
            state.answered()
            request = None  # answered() has dropped it
        finally:
            if request is not None:
                # still set: an exception that is not ours, such as the caller's deadline
                if request.wait_s is not None and not first:
                    restore_timeout(self, request)
                request.give_up()
            error = None  # its traceback holds this frame
            if state.used_at >= status.due_at:  # an answer, or a new socket, sets used_at
                status.write_due()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle or copy as the class that it has without us, which it gets back for that.

        pickle looks classes up by name. To do it for every answer would cost 1 % of a GET.
        """
        _, mixin, base = type(self).__mro__[:3]
        if mixin is not Answer:  # a class that somebody has made from ours
            return super().__reduce_ex__(protocol)
        object.__setattr__(self, "__class__", base)
        return self.__reduce_ex__(protocol)


@fallback.guarded("answer_failed")
def _begin_to_wait(response: Answer) -> Optional[Request]:
    """Set the timeout of the first wait; return None if urllib3 is to read the answer alone."""
    if not isinstance(file := response.fp, BufferedReader):
        return None
    sock = getattr(file.raw, "_sock", None)
    state = by_id(id(sock))
    request = None if state is None else state.request  # read once: an install drops it
    if state is None or request is None or state.sock() is not sock:
        return None
    conn = request.conn()
    if conn is None or conn.sock is not sock:
        return None
    first_byte_at = request.sent_at
    state.phase, request.sent_at = WAITING, monotonic()
    request.timeout_s = timeout_of(sock)
    wait_s = first_wait_s(request, first_byte_at)
    # a socket of an unknown kind cannot be asked, and its timeouts need not look like a socket's
    if wait_s is not None and state.poll is not None:
        request.wait_s = wait_s
        sock.settimeout(wait_s)
    return request


@fallback.guarded("answer_failed")
def _learn(response: Answer, request: Request) -> None:
    """Take from an answer what the connection's next request needs to know."""
    state = request.state
    if request.first_error is not None:
        response.stalepool_replayed = True
        replay.note_outcome(request, "ok")
    layers = None if state.answers else layers_of(response.fp.raw._sock)
    if layers is not None and layers.is_tcp:  # all Unix sockets have one name
        # not later: a connection may outlive the peer's listener
        stats.origin(peer_of(request.conn())).knowledge.note_answered()
    challenges = response.headers.get_all(_CHALLENGES.get(response.status, ""), [])
    state.learn(
        idle_limit_s=request_rules.keep_alive_hint_s(response.headers.get("keep-alive", "")),
        is_bound=request_rules.speaks_an_identity(request.head)
        or request_rules.offers_an_identity(", ".join(challenges)),
        is_upgraded=response.status == SWITCHING_PROTOCOLS
        or request_rules.asks_for_an_upgrade(request.head),
    )
    if request.moved_for is not None:
        move.note_answer(response, request)


def make_response_class(original: Callable[[Any, Any], Any], module: Any) -> Any:
    """Return the new attribute; ``original(instance, owner)`` returns the class it had."""
    class_of = functools.lru_cache(MOST_CLASSES)(_class_of)  # goes with this copy of urllib3

    class ResponseClass:
        """A descriptor without ``__set__``, so that an instance may have a class of its own."""

        def __get__(self, conn: Any, owner: Any = None) -> Any:
            base = original(conn, owner)
            # a function, or a class of another metaclass, is left as it is
            return class_of(base) if type(base) is ABCMeta else base

    return ResponseClass()


def _class_of(base: Any) -> Any:
    """Return a class that is the base and an :class:`Answer`.

    The base itself if none may be made of it: then urllib3 reads the answer alone.
    """
    mro = base.__mro__
    names = ["%s.%s" % (each.__module__, each.__qualname__) for each in mro]
    is_a_response = any(name.endswith("http.client.HTTPResponse") for name in names)
    is_told_of_subclasses = any("__init_subclass__" in vars(each) for each in mro[:-1])
    if not is_a_response or is_told_of_subclasses or Answer in mro:
        return base
    namespace = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, (Answer, base), namespace)


def make_replayed(original: Any, module: Any) -> Any:
    """Return the descriptor that urllib3's response gets: it asks http.client's response inside."""

    class Replayed:
        def __get__(self, response: Any, owner: Any = None) -> bool:
            made_of = getattr(response, "_original_response", None)
            return getattr(made_of, "stalepool_replayed", False) is True  # it may be a mock

    return Replayed()


def make_sock_shutdown(original: Any, module: Any) -> Any:
    """Return the descriptor of what ``HTTPResponse.shutdown()`` of urllib3 2.x calls.

    urllib3 takes it off the socket before the answer comes; that to a replay comes on another one.
    """

    class SockShutdown:
        def __get__(self, response: Any, owner: Any = None) -> Any:
            if response is None:
                raise AttributeError("_sock_shutdown")
            file = response.stalepool_replayed and response._original_response.fp
            own = vars(response).get("_sock_shutdown")
            return getattr(file.raw._sock, "shutdown", None) if file else own

        def __set__(self, response: Any, taken: Any) -> None:
            vars(response)["_sock_shutdown"] = taken

    return SockShutdown()
