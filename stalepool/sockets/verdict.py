"""Verdicts on an idle socket, and what follows from each: keep, discard, or urllib3 decides.

Readable means not reusable, but for TLS 1.3's own messages: docs/theory.rst.
"""

from __future__ import annotations

import enum


class Action(enum.Enum):
    """The checkout's choices."""

    KEEP = "keep"
    DISCARD = "discard"  # close it; urllib3 opens a fresh one on the same object
    DEFER = "defer"  # urllib3 decides, as it would without us


class Verdict(enum.Enum):
    """The result of a check: its name in counters, its meaning, and the action (else DISCARD)."""

    ALIVE = "alive", "nothing to read, nothing wrong", Action.KEEP
    CLOSED = "closed", "closed by the peer (FIN, or TLS close_notify)"
    RESET = "reset", "reset by the peer or a middlebox (RST)"
    TIMED_OUT = "timed_out", "given up by the kernel (keepalive, unreachable)"
    UNREAD = "unread", "unread bytes that answer no request of ours"
    TLS_PENDING = "tls_pending", "bytes of an earlier record left in the TLS layer"
    IDLE_TOO_LONG = "idle_too_long", "idle for max_idle_s"
    FOREIGN_PROCESS = "foreign_process", "opened before fork(), belongs to the parent"
    NO_SOCKET = "no_socket", "no open socket on the connection object"
    UNKNOWN = "unknown", "a class or socket that cannot be asked", Action.DEFER

    meaning: str
    action: Action

    def __new__(cls, value: str, meaning: str = "", action: Action = Action.DISCARD) -> Verdict:
        verdict = object.__new__(cls)
        verdict._value_, verdict.meaning, verdict.action = value, meaning, action
        return verdict


#: the peer or the network has ended the connection, not a rule of ours
DEATHS = frozenset((Verdict.CLOSED, Verdict.RESET, Verdict.TIMED_OUT))
