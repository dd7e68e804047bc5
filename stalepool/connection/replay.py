"""Replay: the recorded bytes of a lost request are sent once more, on a fresh socket.

A replay happens inside one of urllib3's attempts. If it fails, the caller gets the first error, or
waits on if there is none, since the peer is silent.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, NoReturn, Optional

from stalepool import fallback, runtime
from stalepool.clock import monotonic, shorter
from stalepool.connection.fresh_socket import abandon, address_of, open_like, take
from stalepool.connection.request_rules import is_a_success, may_be_replayed, status_of
from stalepool.connection.state import NOTHING_LEFT_S, Request
from stalepool.foreign import drop_frames, is_foreign, raise_again
from stalepool.sockets import failure
from stalepool.sockets.layers import clear_tls_errors, timeout_of

#: seconds for each operation (connect, tunnel, handshake) of a replay: a SYN, one retransmission
REPLAY_S = 2.0
SEND_S = 10.0  #: seconds for sending a record, where no other answer is to come
PIECE = 1 << 14  #: bytes of one write: as much as a TLS record holds

MOST_BESIDE = 64  #: requests at a time that have a socket beside: descriptors may be scarce
#: the replays whose socket is beside one on which an answer may still come
_beside: weakref.WeakSet[Replay] = weakref.WeakSet()
runtime.on_change(_beside.clear)  # a forked child has none


def after_failed_send(request: Request, error: BaseException) -> bool:
    """After a failed send, send the record on a fresh socket. False: raise the error.

    :raises: the first error, if a replay's connection has ended before the body was sent.
    """
    sock = request.state.sock()
    if request.first_error is not None:
        if not failure.has_ended(sock, error) or failure.answer_has_begun(sock):
            return False
        raise_the_first_error(request)
    if not may_be_replayed(request, error):
        return False
    clear_tls_errors(sock, error)
    request.timeout_s = timeout_of(sock)
    with contextlib.closing(Replay(request)) as replay:
        if not (replay.open() and replay.send() and take(request, replay.sock)):
            return False
        replay.sock.settimeout(request.timeout_s)
        request.first_error = error
        replay.let_go()  # what becomes of it, its answer says
    return True


class Replay:
    """A request's second sending, and the fresh socket for it, until the connection takes that."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sock: Any = None
        self.is_under_way = False  #: it has begun, and what becomes of it is not known yet

    def open(self) -> bool:
        """Open the socket, since the connection has ended. False if that failed. Yields."""
        self.close()  # one that was opened beside
        request = self.request
        request.is_replayed = self.is_under_way = True
        # the name is looked up, as for urllib3's own retry: the node may be gone
        limit_s = shorter(REPLAY_S, request.connect_timeout, request.left_s)
        self.sock = open_like(request.conn(), request, limit_s)
        return self.sock is not None

    def open_beside(self, limit_s: float) -> bool:
        """Open the socket while the old one may be answered, so as to see the path. Yields."""
        if len(_beside) >= MOST_BESIDE:
            return False
        _beside.add(self)
        conn: Any = self.request.conn()
        self.sock = open_like(conn, self.request, limit_s, address_of(conn))
        return self.sock is not None

    def close(self) -> None:
        """Close the socket, if it is open: what was sent on it is not to arrive any more."""
        sock, was_under_way = self.sock, self.is_under_way
        _beside.discard(self)
        self.sock, self.is_under_way = None, False  # first: nothing is done twice if interrupted
        if sock is not None:
            abandon(sock)
        if was_under_way:
            note_outcome(self.request, "failed")

    def let_go(self) -> None:
        """Leave the socket to the connection, whose silent one is gone then."""
        if self in _beside:
            _beside.discard(self)
            self.request.state.origin.count("gone", "silent_in_request")
        self.sock, self.is_under_way = None, False

    def send(self) -> bool:
        """Send the record. False if that failed, so that the socket is closed. Yields.

        :raises: the caller's deadline.
        """
        request = self.request
        # else another thread closed it, or the answer came while the fresh one was opened
        if request.is_followed and not failure.answer_has_begun(request.state.sock()):
            request.is_replayed = self.is_under_way = True
            # meanwhile the old one is not read
            limit_s = shorter(REPLAY_S if self in _beside else SEND_S, request.left_s)
            record, since = b"".join(request.sent), monotonic()
            try:
                # in pieces, since some TLS and green sockets limit each write alone
                for at in range(0, len(record), PIECE):
                    self.sock.settimeout(max(NOTHING_LEFT_S, since + limit_s - monotonic()))
                    self.sock.sendall(record[at : at + PIECE])
                return True
            except failure.socket_errors() as error:
                clear_tls_errors(self.sock, error)
                has_run_out = failure.has_run_out(error, since, limit_s)
                if not has_run_out and is_foreign(error):  # the caller's deadline
                    raise
                drop_frames(error)
        self.close()
        return False

    def answer(self, limit_s: Optional[float]) -> Any:
        """Return the socket's file object once an answer begins there; None if none does in time.

        The socket is closed if it fails. Yields.

        :raises: the caller's deadline.
        """
        file, since, first = None, monotonic(), b""  # type: Any, float, bytes
        try:
            self.sock.settimeout(limit_s)
            file = self.sock.makefile("rb")
            first = file.peek(1)
        except failure.socket_errors() as error:
            if failure.has_run_out(error, since, limit_s):
                drop_frames(error)
                return None
            clear_tls_errors(self.sock, error)
            if is_foreign(error):
                raise
        finally:
            if file is not None and not first:
                file.close()
        if not first:
            self.close()
            return None
        return file

    def answer_beside(self, limit_s: Optional[float]) -> Any:
        """Return a success's file object; the connection takes the socket. A refusal closes it."""
        file = self.answer(limit_s)
        if file is None:
            return None
        # the old one may be answered yet, and a refusal may be due to there being two
        if not is_a_success(status_of(file.peek(1))) or not take(self.request, self.sock):
            file.close()
            self.close()
            return None
        note_outcome(self.request, "ok")
        self.let_go()
        return file


def raise_the_first_error(request: Request) -> NoReturn:
    """Raise what sending it has raised, since its second sending has failed, too."""
    note_outcome(request, "failed")
    assert request.first_error is not None
    raise_again(request.first_error)


def note_outcome(request: Request, outcome: str) -> None:
    """Count what became of a replay, and log it."""
    origin = request.state.origin
    origin.count("replays", outcome)
    level = "INFO" if outcome == "ok" else "DEBUG"
    text = "%s: %s was sent once more on a fresh connection: %s"
    fallback.log("replay", level, text, origin.name, str(request.method, "latin-1"), outcome)
