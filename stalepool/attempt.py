"""One request on its way: what is known while it is, and the seams that find it out.

The attempt hangs on the connection object for as long as urllib3 works on the request. Two seams
find it there: ``HTTPConnection.send``, which carries the request's first byte, and the response,
which sees the first byte come back, or the connection die, before anybody closes the socket.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Optional

from stalepool import aside, patience, peek
from stalepool.pooled import Pooled
from stalepool.verdict import Action, Verdict
from stalepool.wire import wire_of

_ATTRIBUTE = "_stalepool_attempt"


class FoundStale(Exception):
    """The second look found the connection dead; not a byte of the request was sent.

    No OSError: urllib3 swallows some of those while it sends.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.value)
        self.verdict = verdict


class Attempt:
    """``pooled``: what is remembered of the connection, None if it is a fresh one."""

    __slots__ = (
        "answer_began",
        "evidence",
        "is_unsent",
        "looks_twice",
        "others_response_class",
        "pooled",
        "response_class",
        "user_timeout_ms",
        "was_watched",
    )

    def __init__(
        self,
        pooled: Optional[Pooled],
        looks_twice: bool,
        user_timeout_ms: int,
        evidence: Optional[Evidence] = None,
    ) -> None:
        self.pooled = pooled
        self.looks_twice = looks_twice
        #: what the request wants, in ms; None once the socket proved not to be ours to set
        self.user_timeout_ms: Optional[int] = user_timeout_ms
        self.evidence = evidence
        self.is_unsent = True
        self.answer_began = False
        #: whether ``answer_began`` can be relied on
        self.was_watched = False
        #: ours while it is in place, and what it is in the place of (None: the class's own)
        self.response_class: Any = None
        self.others_response_class: Any = None

    def on_a_fresh_connection(self) -> Attempt:
        """The same request again, as if it was the first of a connection."""
        self.pooled = self.evidence = None
        self.looks_twice = self.answer_began = self.was_watched = False
        self.is_unsent = True
        return self


def attach(conn: Any, attempt: Attempt) -> None:
    """Let the seams find the attempt, and the response tell it whether an answer began."""
    setattr(conn, _ATTRIBUTE, attempt)
    present = conn.response_class
    if isinstance(present, type):  # a function in its place makes what cannot be known
        attempt.others_response_class = conn.__dict__.get("response_class")
        attempt.response_class = functools.partial(_make_response, _watching(present), attempt)
        conn.response_class = attempt.response_class


def detach(conn: Any, attempt: Attempt) -> None:
    """Leave the connection as it was. Somebody may have changed the response class meanwhile,
    as botocore does: theirs stays, and the answer went unwatched, unless ours was made before.
    """
    delattr(conn, _ATTRIBUTE)
    ours, attempt.response_class = attempt.response_class, None  # which holds the attempt
    if ours is None or conn.__dict__.get("response_class") is not ours:
        return
    attempt.was_watched = True
    if attempt.others_response_class is None:
        del conn.response_class
    else:
        conn.response_class = attempt.others_response_class


# ---------------------------------------------------------------------------------- going out


def make_send(stock: Callable[..., Any], connectionpool: Any) -> Callable[..., Any]:
    """What takes the place of ``HTTPConnection.send``: the second look, and the user timeout."""

    @functools.wraps(stock)
    def send(self: Any, data: Any) -> Any:
        attempt = self.__dict__.get(_ATTRIBUTE)
        if attempt is None or not attempt.is_unsent:
            return stock(self, data)
        attempt.is_unsent = False
        if attempt.pooled is None:
            stock(self, data)  # connects first, where the connection is not open yet
            _bound_fresh(self, attempt)
            return None
        try:
            _before_first_byte(self, attempt, attempt.pooled)
        except FoundStale:
            raise
        except Exception as error:
            aside.stand_aside("request_failed", repr(error))
        return stock(self, data)

    return send


def _before_first_byte(conn: Any, attempt: Attempt, pooled: Pooled) -> None:
    """:raises FoundStale: the connection must not carry the request."""
    if (
        attempt.looks_twice
        and pooled.poll is not None  # None: a kind of socket that cannot be asked
        and (pooled.poll(0) or (pooled.pending is not None and pooled.pending()))
    ):
        _look_closer(conn, pooled.poll)
    if pooled.user_timeout_ms != attempt.user_timeout_ms:
        _bound_reused(conn, attempt, pooled)
    if attempt.evidence is not None:
        attempt.evidence.begin(conn.sock)


def _look_closer(conn: Any, poll: peek.Poll) -> None:
    wire = wire_of(conn.sock)
    if wire is not None:
        verdict = peek.look(wire, poll)
        if verdict.action is Action.DISCARD:
            raise FoundStale(verdict)


def _bound_fresh(conn: Any, attempt: Attempt) -> None:
    """The user timeout of a new connection's first request; an application's own one stays."""
    try:
        wire = wire_of(conn.sock)
        if wire is None or patience.user_timeout_ms(wire.raw) != 0:
            attempt.user_timeout_ms = None
        elif attempt.user_timeout_ms:
            patience.set_user_timeout_ms(wire.raw, attempt.user_timeout_ms)
    except Exception as error:
        aside.stand_aside("request_failed", repr(error))


def _bound_reused(conn: Any, attempt: Attempt, pooled: Pooled) -> None:
    """Change the user timeout from that of the request before, where it is ours to change."""
    if pooled.user_timeout_ms is None:
        return
    try:
        wire, wanted_ms = wire_of(conn.sock), attempt.user_timeout_ms or 0
        if wire is not None:
            patience.set_user_timeout_ms(wire.raw, wanted_ms)
            pooled.user_timeout_ms = wanted_ms
    except Exception as error:
        pooled.user_timeout_ms = None
        aside.stand_aside("request_failed", repr(error))


# -------------------------------------------------------------------------------- coming back


@functools.lru_cache(maxsize=32)
def _watching(response_class: Any) -> Any:
    """A subclass of a response class that tells the attempt what came back."""

    class WatchedResponse(response_class):  # type: ignore[misc]
        _stalepool_attempt: Attempt

        def begin(self) -> None:
            attempt, first = self._stalepool_attempt, b""
            if not hasattr(self.fp, "peek"):  # not known then, so taken for begun
                attempt.answer_began = True
                super().begin()
                return
            try:
                # the read that readline() begins with; the status line then comes from the buffer
                first = self.fp.peek(1)
            finally:
                attempt.answer_began = bool(first)
                if not first and attempt.evidence is not None:
                    # http.client is about to close the socket, and with it all evidence
                    attempt.evidence.end()
            super().begin()

    return WatchedResponse


def _make_response(cls: Any, attempt: Attempt, *args: Any, **kwargs: Any) -> Any:
    response = cls(*args, **kwargs)
    response._stalepool_attempt = attempt
    attempt.was_watched = True
    return response


class Evidence:
    """Whether the server closed before it read a byte of the request: the one sequence that tells.

    Measured on Linux 6.18, hundreds of tries each: where the server had closed fully before the
    request came, our bytes draw a RST behind its FIN. The FIN counts as one of ``bytes_received``,
    the RST as none; nothing is acknowledged (``bytes_acked``); the state ends as CLOSE. A server
    that read and acted on the request leaves another trace: it acknowledged, or it still holds the
    socket (CLOSE_WAIT), or it sent no FIN. This is evidence, not proof, and opt-in.
    """

    __slots__ = ("_before", "_pause", "_sock", "never_read")

    def __init__(self, pause: Callable[[float], None]) -> None:
        self._pause = pause
        self._sock: Any = None
        self._before: Optional[peek.TcpBytes] = None
        self.never_read = False

    def begin(self, sock: Any) -> None:
        """Note the counts before the first byte of the request."""
        wire = wire_of(sock)
        self._sock = wire
        self._before = None if wire is None else peek.tcp_bytes(wire)

    def end(self) -> None:
        """Read them again after the connection ended. Waits for the RST for 40 ms, yielding."""
        for _ in range(20):
            after = None if self._sock is None else peek.tcp_bytes(self._sock)
            if after is None or self._before is None or after.acked != self._before.acked:
                return
            if after.is_closed:
                self.never_read = after.received == self._before.received + 1
                return
            self._pause(0.002)
