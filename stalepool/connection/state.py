"""The state of one connection's socket: its phase, and what is remembered of it.

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

import select
import weakref
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from stalepool import fallback, runtime, stats
from stalepool.clock import monotonic
from stalepool.connection.origins import origin_of
from stalepool.sockets.layers import RawSocket, raw_of
from stalepool.sockets.tcp_info import TcpInfo

if TYPE_CHECKING:
    from stalepool.connection.request import Request

FRESH, IDLE, CHECKED = "fresh", "idle", "checked"
SENDING, WAITING, UPGRADED = "sending", "waiting", "upgraded"


class State:
    """The state of one socket; with its poll object some 600 bytes."""

    __slots__ = (
        *("answers", "full_check_from_s", "idle_limit_s", "is_bound", "is_tls", "pending_move"),
        *("origin", "phase", "poll", "replaced_silent", "request", "sock", "used_at"),
    )

    def __init__(self, conn: Any, phase: str) -> None:
        self.origin = stats.origin(origin_of(conn))
        #: what the server announced in ``Keep-Alive: timeout=N``
        self.idle_limit_s: Optional[float] = None
        #: an identity was spoken on the connection: NTLM, Negotiate, Kerberos
        self.is_bound = False
        self.request: Optional[Request] = None
        self.phase = phase
        self.follow(conn.sock)
        if phase is FRESH:  # else it may have been opened in another process
            note_opened(conn.sock)

    def follow(self, sock: Any) -> None:
        """Make this the state of a socket of the connection, from now on."""
        self.sock = weakref.ref(sock)
        #: the socket replaces one whose peer was silent
        self.replaced_silent = False
        #: answers that came on this very socket
        self.answers = 0
        #: idle time in seconds from which on a full check is due; 0: it is due now
        self.full_check_from_s = 0.0
        self.poll: Optional[select.poll] = None
        self.is_tls = False
        #: why the next request, whatever its method, is to take a fresh socket
        self.pending_move: Optional[str] = None
        self.used_at = monotonic()
        _forget(id(sock))
        _states[id(sock)] = self
        if self.used_at > _sweep_due_at:
            _sweep()

    def idle_s(self, info: Optional[TcpInfo]) -> float:
        """Return the idle time in seconds, from the kernel or else since the last answer."""
        return monotonic() - self.used_at if info is None else info.last_data_recv_ms / 1000

    def __repr__(self) -> str:
        told = [self.origin.name, self.phase, "%d answers" % self.answers]
        if self.is_bound:
            told.append("bound to an identity")
        if self.idle_limit_s is not None:
            told.append("idle limit %g s" % self.idle_limit_s)
        if self.pending_move:
            told.append("will move for: %s" % self.pending_move)
        request = self.request
        if request is not None:
            recorded = "%d bytes recorded" % request.size if request.is_recorded else "not recorded"
            told += [str(request.method, "latin-1"), recorded]
            told += [] if request.is_reused else ["on a connection not checked out"]
            told += ["replayed"] if request.is_replayed else []
        return "<State %s>" % ", ".join(told)

    # Transitions. tests/test_house.py lists the attributes that other modules write themselves.

    def checked(self) -> None:
        """A pool has checked the connection out, and keeps it."""
        self.phase = CHECKED

    def trust(self, idle_s: float, poll: select.poll, is_tls: bool) -> None:
        """The full check found the connection alive: up to ``idle_s`` the fast check suffices.

        :param idle_s: idle time in seconds; while a move is due, each check is a full one.
        :param is_tls: the fast check asks ``sock.pending()``, too.
        """
        self.poll, self.is_tls = poll, is_tls
        self.full_check_from_s = idle_s if self.pending_move is None else 0.0

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


def sockets_of(origin: stats.Origin) -> List[Any]:
    """List the sockets to an origin, with None for each that is gone."""
    return [state.sock() for state in list(_states.values()) if state.origin is origin]


#: descriptor -> fork generation of the process that last opened it; no entry: the first process
_opened: Dict[int, int] = {}


@fallback.guarded("connect_failed")
def note_opened(sock: Any) -> None:
    """Remember in which process a socket was opened: its state may begin only later, or never."""
    raw = raw_of(sock) if runtime.fork_generation else None
    if raw is not None:
        _opened[raw.fileno()] = runtime.fork_generation


def is_of_another_process(raw: RawSocket) -> bool:
    """Tell whether a socket was opened before the last fork: it is the parent's."""
    return _opened.get(raw.fileno(), 0) != runtime.fork_generation


def _begin_anew() -> None:
    """Forget the requests in flight, which may end unseen; urllib3 sends the rest of them alone."""
    for state in list(_states.values()):
        state.full_check_from_s, state.poll, state.request = 0.0, None, None
        if state.phase is CHECKED:
            state.phase = IDLE


runtime.on_change(_begin_anew)
