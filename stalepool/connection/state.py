"""The state of one connection's socket: its phase, its request, and what is remembered of it.

It is kept in a table, by the socket's identity, and refers to the socket weakly: docs/design.rst.

==================  ==============================  ========  ======================================
phase               event                           next      done there
==================  ==============================  ========  ======================================
FRESH, IDLE         checkout, kept                  CHECKED   fast or full check
CHECKED             first byte of a request         SENDING   pre-send check; move; record
FRESH, IDLE         first byte, no checkout         SENDING   record
SENDING             more bytes                      SENDING   record, up to 1 MiB
SENDING             the answer is awaited           WAITING   the wait on silence, if it is safe
WAITING             head of an answer               IDLE      Keep-Alive hint; identity; answers + 1
WAITING             101, or Upgrade was asked       UPGRADED  never touched again
SENDING, WAITING    failure, may be sent again      (same)    fresh socket, recorded bytes, once
any                 connection has another socket   none      urllib3 alone
==================  ==============================  ========  ======================================
"""

from __future__ import annotations

import functools
import re
import select
import weakref
from typing import Any, Dict, Optional

from stalepool import fallback, runtime, stats
from stalepool.clock import monotonic
from stalepool.connection.origins import origin_of
from stalepool.settings import Settings
from stalepool.sockets import keepalive
from stalepool.sockets.layers import RawSocket, layers_of
from stalepool.sockets.tcp_info import TcpInfo

FRESH, IDLE, CHECKED = "fresh", "idle", "checked"
SENDING, WAITING, UPGRADED = "sending", "waiting", "upgraded"

#: bytes of a request, head included, that are recorded for a replay
RECORD_LIMIT = 1 << 20
#: requests at a time whose body is sent in pieces, as a file's is: the record alone keeps those
MOST_IN_PIECES = 64
in_pieces: weakref.WeakSet[Request] = weakref.WeakSet()
NOTHING_LEFT_S = 0.001  #: what is left of a limit that has run out

#: one float for all connections, of 24 bytes; two floats are compared faster than float and int
_as_float = functools.lru_cache(64)(float)
_content_length = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*(\d+)[ \t]*\r\n").search


class State:
    """The state of one socket; with its poll object some 600 bytes."""

    __slots__ = (
        *("answers", "full_check_from_s", "idle_limit_s", "is_bound", "is_silent", "is_tls"),
        *("origin", "phase", "poll", "replaced_silent", "request", "sock", "used_at"),
    )

    def __init__(self, conn: Any, phase: str) -> None:
        self.origin = stats.origin(origin_of(conn))
        self.idle_limit_s: Optional[float] = None  # as announced: ``Keep-Alive: timeout=N``
        self.is_bound = False  # an identity was spoken on it, as by NTLM
        self.request: Optional[Request] = None
        self.phase = phase
        self.follow(conn.sock)
        if phase is FRESH:  # else it may have been opened in another process
            note_opened(conn.sock)

    def follow(self, sock: Any) -> None:
        """Make this the state of a socket of the connection, from now on."""
        self.sock = weakref.ref(sock)
        self.replaced_silent = False  # whether it replaces one whose peer was silent
        self.answers = 0  # that came on this very socket
        #: idle time in seconds from which on a full check is due; 0: it is due now
        self.full_check_from_s = 0.0
        self.poll: Optional[select.poll] = None
        self.is_tls = False
        #: probes are unanswered: the next request, whatever its method, is to take a fresh socket
        self.is_silent = False
        self.used_at = monotonic()
        _forget(id(sock))
        _states[id(sock)] = self
        if self.used_at > _sweep_due_at:
            _sweep()

    def idle_s(self, info: Optional[TcpInfo] = None) -> float:
        """Return the idle time in seconds: the kernel's, or else the time since the last answer."""
        return monotonic() - self.used_at if info is None else info.last_data_recv_ms / 1000

    def note_probes_swallowed(self, settings: Settings) -> None:
        """Note that the origin swallows probes, and probe its connections rarely: they live."""
        self.origin.knowledge.note_probes_swallowed()
        for state in list(_states.values()):
            if state.origin is self.origin:
                keepalive.probe_rarely(layers_of(state.sock()), settings)

    def __repr__(self) -> str:
        told = [self.origin.name, self.phase, "%d answers" % self.answers]
        told += ["bound to an identity"] if self.is_bound else []
        told += ["its peer is silent"] if self.is_silent else []
        if self.idle_limit_s is not None:
            told.append("idle limit %g s" % self.idle_limit_s)
        if (request := self.request) is not None:
            recorded = "%d bytes recorded" if request.is_recorded else "not recorded, %d bytes"
            told += [str(request.method, "latin-1"), recorded % request.size]
        return "<State %s>" % ", ".join(told)

    # Transitions. tests/test_house.py lists the attributes that other modules write themselves.

    def checked(self) -> None:
        """A pool has checked the connection out, and keeps it."""
        self.phase = CHECKED

    def trust(self, idle_s: float, poll: select.poll, is_tls: bool) -> None:
        """The full check found the connection alive: up to ``idle_s`` the fast check suffices.

        :param idle_s: idle time in seconds; while the peer is silent, each check is a full one.
        :param is_tls: the fast check asks ``sock.pending()``, too.
        """
        self.poll, self.is_tls = poll, is_tls
        self.full_check_from_s = 0.0 if self.is_silent else _as_float(idle_s)

    def learn(self, idle_limit_s: Optional[float], is_bound: Any, is_upgraded: Any) -> None:
        """Note what an answer says of its connection; ``idle_limit_s`` is the Keep-Alive hint."""
        if idle_limit_s is not None:
            self.idle_limit_s = idle_limit_s
        if is_bound:
            self.is_bound = True
        if is_upgraded:
            self.phase, self.full_check_from_s = UPGRADED, 0.0

    def answered(self) -> None:
        """The head of an answer has arrived."""
        self.answers += 1
        self.used_at = monotonic()
        self.request = None
        if self.phase is not UPGRADED:
            self.phase = IDLE


class Request:
    """A request from its first bytes on. To make one is a transition of its state."""

    moved_for: Optional[str] = None
    may_resume_moves = False
    first_error: Optional[BaseException] = None

    def __init__(self, state: State, conn: Any, data: Any, settings: Settings) -> None:
        """Begin with the first bytes that go out: http.client sends the head as one."""
        self.state = state
        self.settings = settings  # those in force as the request began
        self.conn = weakref.ref(conn)
        #: a pool has checked the connection out, and an answer has come on this socket
        self.is_reused = state.phase is CHECKED and state.answers > 0
        #: kept, since urllib3 2.x overwrites it with the read timeout while it waits
        self.connect_timeout = conn.timeout
        self.timeout_s: Optional[float] = None  #: of the socket as the wait began, or a send failed
        self.wait_s: Optional[float] = None  #: of the first wait; None: it is not watched
        self.is_replayed = False
        #: monotonic time of the first byte, and of the last once that is out
        self.sent_at = monotonic()
        #: every byte that went out is in the record
        self.is_recorded = type(data) is bytes and len(data) <= RECORD_LIMIT
        first: bytes = data if self.is_recorded else b""
        #: the bytes, as they went out; after more than RECORD_LIMIT only the head
        self.sent = [first]
        self.size = len(first)
        #: from the bytes: while a tunnel is opened, the connection has the last request's
        self.method = first.partition(b" ")[0]
        #: request line and headers in lower case; empty where they were not seen
        self.head = first.partition(b"\r\n\r\n")[0].lower()
        state.phase, state.request = SENDING, self  # once nothing can fail any more

    def record(self, data: Any) -> None:
        """Note more bytes that go out; a file or an iterable is consumed as it goes."""
        is_bytes = isinstance(data, (bytes, bytearray, memoryview))
        self.size += memoryview(data).nbytes if is_bytes else RECORD_LIMIT + 1
        if self.size <= RECORD_LIMIT:
            self.sent.append(b"" if self.settings.is_audit else bytes(data))  # only counted
            if len(self.sent) == 3:
                in_pieces.add(self)
        else:
            self.stop_recording()

    def stop_recording(self) -> None:
        """Record no more, and keep only the head: it is too large, or will not be sent again."""
        self.is_recorded = False
        if len(self.sent) > 2:
            in_pieces.discard(self)
        del self.sent[1:]

    def give_up(self) -> None:
        """It has failed for good, or cannot be followed: urllib3 reads any answer alone.

        The caller's exception may hold the request for long, so its record is dropped.
        """
        self.state.request = None
        self.stop_recording()
        self.sent, self.head, self.first_error = [b""], b"", None

    @property
    def is_followed(self) -> bool:
        """Tell whether its settings are in force still, and nobody has closed its connection."""
        sock = self.state.sock()
        is_open = sock is not None and getattr(self.conn(), "sock", None) is sock
        return is_open and self.state.request is self and self.settings is runtime.current

    @property
    def left_s(self) -> Optional[float]:
        """Seconds that are left of the caller's timeout, None without one; never below 1 ms.

        As a timeout of a socket, 0 would be non-blocking.
        """
        if self.timeout_s is None:
            return None
        return max(NOTHING_LEFT_S, self.sent_at + self.timeout_s - monotonic())

    @property
    def is_whole(self) -> bool:
        """Tell whether the recorded body is as long as its Content-Length says.

        urllib3 ignores EPIPE and ECONNRESET while it sends, even if the body raised them.
        """
        stated = _content_length(self.head + b"\r\n")
        body_size = self.size - len(self.head) - len(b"\r\n\r\n")
        return body_size == (int(stated[1]) if stated else 0)


_states: Dict[int, State] = {}

#: for the hot path: the state kept under an ``id()``, or None. The caller has to check that it is
#: the state of this socket, and not of one that is gone
by_id = _states.get

_sweep_due_at = 0.0
#: seconds after which the next new socket sweeps: a state that is gone may hold a record
SWEEP_EVERY_S = 1.0


def _sweep() -> None:
    """Forget the states of sockets that are gone.

    Weak references have no callback for it: a signal handler's exception in there would be lost.
    """
    global _sweep_due_at
    for key in _states.copy():
        _forget(key)
    _sweep_due_at = monotonic() + SWEEP_EVERY_S


def _forget(key: int) -> None:
    """Forget the state under a key if its socket is gone, and its request, which refers to it."""
    state = _states.get(key)
    if state is not None and state.sock() is None:
        _states.pop(key, None)
        state.request = None


def find(sock: Any) -> Optional[State]:
    """Return the state of a socket, None where nothing is remembered of it."""
    state = _states.get(id(sock))
    return state if state is not None and state.sock() is sock else None


#: descriptor -> fork generation of the process that last opened it; no entry: the first process
_opened: Dict[int, int] = {}


@fallback.guarded("connect_failed")
def note_opened(sock: Any) -> None:
    """Remember in which process a socket was opened: its state may begin only later, or never."""
    layers = layers_of(sock) if runtime.fork_generation else None
    if layers is not None:
        _opened[layers.raw.fileno()] = runtime.fork_generation


def is_of_another_process(raw: RawSocket) -> bool:
    """Tell whether a socket was opened before the last fork: it is the parent's."""
    return _opened.get(raw.fileno(), 0) != runtime.fork_generation


def _begin_anew() -> None:
    """Forget the requests in flight, which may end unseen; urllib3 sends the rest of them alone."""
    in_pieces.clear()  # in a forked child the frames of the other threads keep theirs for good
    for state in list(_states.values()):
        state.full_check_from_s, state.poll, state.request = 0.0, None, None
        if state.phase is CHECKED:
            state.phase = IDLE


runtime.on_change(_begin_anew)
