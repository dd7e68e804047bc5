"""Verdicts on an idle socket, and the table of what follows: keep, discard, or urllib3 decides.

On an idle HTTP/1.1 connection the client speaks next (RFC 9112, section 9). So readable means not
reusable: it is a FIN, a RST, a 408, or an answer to no request. TLS 1.3 is the exception: session
tickets and key updates make a healthy connection readable. Silence is not life: only keepalive
probes show that a peer has vanished.
"""

from __future__ import annotations

import enum


class Action(enum.Enum):
    """The checkout's choices."""

    KEEP = "keep"
    DISCARD = "discard"  # close it; urllib3 opens a fresh one on the same object
    DEFER = "defer"  # urllib3 decides, as it would without us


class Verdict(enum.Enum):
    """The result of a check of a pooled connection; the values are its names in counters."""

    ALIVE = "alive"
    CLOSED = "closed"
    RESET = "reset"
    TIMED_OUT = "timed_out"
    UNREAD = "unread"
    TLS_PENDING = "tls_pending"
    IDLE_TOO_LONG = "idle_too_long"
    FOREIGN_PROCESS = "foreign_process"
    NO_SOCKET = "no_socket"
    UNKNOWN = "unknown"

    @property
    def action(self) -> Action:
        return TABLE[self][0]

    @property
    def meaning(self) -> str:
        return TABLE[self][1]

    @property
    def is_discard(self) -> bool:
        """Tell whether it discards an open connection (with ``NO_SOCKET`` there is none)."""
        return self.action is Action.DISCARD and self is not Verdict.NO_SOCKET


TABLE = {
    Verdict.ALIVE: (Action.KEEP, "nothing to read, nothing wrong"),
    Verdict.CLOSED: (Action.DISCARD, "closed by the peer (FIN, or TLS close_notify)"),
    Verdict.RESET: (Action.DISCARD, "reset by the peer or a middlebox (RST)"),
    Verdict.TIMED_OUT: (Action.DISCARD, "given up by the kernel (keepalive, unreachable)"),
    Verdict.UNREAD: (Action.DISCARD, "unread bytes that answer no request of ours"),
    Verdict.TLS_PENDING: (Action.DISCARD, "bytes of an earlier record left in the TLS layer"),
    Verdict.IDLE_TOO_LONG: (Action.DISCARD, "idle for max_idle_s, or Keep-Alive: timeout=0"),
    Verdict.FOREIGN_PROCESS: (Action.DISCARD, "opened before fork(), belongs to the parent"),
    Verdict.NO_SOCKET: (Action.DISCARD, "no open socket on the connection object"),
    Verdict.UNKNOWN: (Action.DEFER, "a class or socket that cannot be asked"),
}

#: the peer or the network has ended the connection, not a rule of ours
DEATHS = frozenset((Verdict.CLOSED, Verdict.RESET, Verdict.TIMED_OUT))
