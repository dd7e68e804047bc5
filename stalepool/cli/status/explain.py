"""The meaning of every name that is counted, and what to do about it.

``docs.tables`` writes tables of the documentation from this, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Set

from stalepool.fallback import REASONS
from stalepool.sockets.verdict import Verdict
from stalepool.stats import GROUPS

if TYPE_CHECKING:
    from stalepool.cli.status.services import Service

NOTHING = "nothing to do"

#: verdicts: what to do; what they mean stands in the verdict's own table
VERDICTS = {
    "alive": NOTHING,
    "closed": "nothing to do; died_idle_s shows the server's idle limit",
    "reset": "nothing to do; if it is frequent, look for a middlebox or a crash on the way",
    "timed_out": "nothing to do; the path to this origin was down",
    "unread": "read what the server sends on idle connections: a 408, or one answer too many",
    "tls_pending": "find the server that sends more than one answer: urllib3 would have taken it",
    "idle_too_long": "nothing to do; that is max_idle_s",
    "foreign_process": "nothing to do; the service opens connections before it forks",
    "no_socket": NOTHING,
    "unknown": "nothing to do in audit mode; else see the fallback unknown_connection",
}

#: name -> what it means, what to do
EVENTS = {
    "presend_check": ("the connection ended between checkout and first byte", NOTHING),
    "probe_unanswered": (
        "a keepalive probe has not been answered",
        "nothing to do; if it is frequent, a firewall on the way drops state",
    ),
    "announced_limit": ("near the idle limit that Keep-Alive: timeout=N announced", NOTHING),
    "observed_limit": ("near the idle time after which this origin closes connections", NOTHING),
    "idle_setting": ("idle longer than nonidempotent_max_idle_s", "nothing to do; you have set it"),
    "failed_in_request": (
        "the connection ended during a request",
        "see replays and replays_refused for what became of the requests",
    ),
    "silent_in_request": (
        "the peer of a request gave no sign of life, although it was asked",
        "find what on the way drops the state of connections: a firewall, a NAT, a failover",
    ),
    "ok": ("the replay was answered with a 2xx or 304; the connect succeeded", NOTHING),
    "failed": (
        "it failed again, or was not answered with a 2xx or 304: the caller got the first error, "
        "gave up, or waited on a silent peer",
        "see whether the origin can be reached at all",
    ),
    "would": ("audit: active would have sent it once more", "switch to active"),
    "windows": ("outages in which connects were tried again", "see when the origin was away"),
    "answer_began": (
        "the server answered and closed before it had the whole request, as with an early 413",
        "read the server's log",
    ),
    "not_ended": (
        "the connection has not ended: the caller's timeout, a signal, our own side's shutdown()",
        "nothing to do; it is not counted",
    ),
    "peer_had_it": (
        "the peer had the whole request, and closed more than replay_within_s after the send",
        "read the server's log: the server failed on the request, and would fail again",
    ),
    "switched_off": ("replay=off", "nothing to do; you have set it"),
    "fresh_connection": (
        "no answer had come on the connection before, so it was not stale",
        "see why the origin fails",
    ),
    "replayed_before": ("it was sent once more already", "see why the origin fails"),
    "method": (
        "POST, PATCH, or another method that the setting replay does not name, and no "
        "Idempotency-Key",
        "send an Idempotency-Key where the server knows it",
    ),
    "precondition": (
        "unsafe and conditional (If-Match, ?cas=): the second sending would find a new state",
        NOTHING,
    ),
    "dialogue": (
        "Expect, Upgrade or Transfer-Encoding: the request cannot be sent again as one message",
        NOTHING,
    ),
    "identity": (
        "NTLM, Negotiate, Kerberos or CredSSP: the connection carries an identity",
        NOTHING,
    ),
    "body": (
        "the body was not recorded as a whole",
        "nothing to do; a request above 1 MiB, head included, is not recorded, nor is the body of "
        "a file while those of 64 other requests are",
    ),
    "own_connect": (
        "the connection is not opened by urllib3's own code alone (docker's Unix sockets, say), or "
        "it was opened in another network namespace",
        NOTHING,
    ),
}

_FALLBACK_REMEDY = "report it, with its WARNING from the log"
_FALLBACK_REMEDIES = {
    "status_failed": "name a directory that the user may write to: STALEPOOL_STATUS_DIR",
    "unknown_connection": "nothing to do; stalepool does not know the class or the socket",
    "requests_unseen": "nothing to do; such a connection is checked, its requests are not replayed",
    "patch_missing": "see the WARNING: install wrapt, or upgrade stalepool for this urllib3",
    "wrapped_by_others": NOTHING,
    "hook_failed": "see the WARNING in the log",
}

#: every name that is counted -> what it means, what to do
_EXPLANATIONS = {
    **{name: (Verdict(name).meaning, remedy) for name, remedy in VERDICTS.items()},
    **EVENTS,
    **{name: (REASONS[name], _FALLBACK_REMEDIES.get(name, _FALLBACK_REMEDY)) for name in REASONS},
}


def words_for(name: str) -> str:
    """Return the meaning of a counted name."""
    return _EXPLANATIONS.get(name, ("?", "?"))[0]


def remedy_for(name: str) -> str:
    """Return what to do about it."""
    return _EXPLANATIONS.get(name, ("?", "?"))[1]


def explanation(services: List[Service]) -> str:
    """Explain every name that was counted in these services."""
    names: Set[str] = set()
    for service in services:
        if service.seen:
            counted = service.counted()
            for group in ("gone", *GROUPS):
                names |= _counted(counted["totals"][group])
            names |= _counted(counted["fallbacks"])
    lines = ["%-18s %s\n%-18s -> %s" % (n, words_for(n), "", remedy_for(n)) for n in sorted(names)]
    return "\n".join(lines) or "nothing was counted"


def _counted(group: Dict[str, int]) -> Set[str]:
    return {name for name, number in group.items() if number}
