"""The meaning of every name that is counted, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Set

from stalepool.fallback import REASONS
from stalepool.sockets.verdict import Verdict

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
    "tls_pending": "find the server that sends more than one answer: others would have taken it",
    "probe_unanswered": "nothing to do; if it is frequent, a firewall on the way forgets",
    "idle_too_long": "nothing to do; that is max_idle_s, or Keep-Alive: timeout=0",
    "foreign_process": "nothing to do; the service opens connections before it forks",
    "no_socket": NOTHING,
    "unknown": "nothing to do in audit mode; else see the fallback unknown_connection",
}

#: name -> what it means, what to do
EVENTS = {
    "presend_check": ("the connection ended between checkout and first byte", NOTHING),
    "announced_limit": ("near the end that Keep-Alive: timeout=N announced", NOTHING),
    "observed_limit": ("near the idle age at which this origin closes", NOTHING),
    "idle_setting": ("idle longer than nonidempotent_max_idle_s", "that is a setting of yours"),
    "failed_in_request": (
        "the connection ended under a request",
        "see replays and replays_refused for what became of the requests",
    ),
    "silent_in_request": (
        "the peer gave no sign of life under a request, although it was asked",
        "find who on the way forgets connections: a firewall, a NAT, a failover",
    ),
    "ok": ("it was answered in the end", NOTHING),
    "failed": (
        "it failed again: the caller got the first error, or waited on a silent peer",
        "is the origin there at all?",
    ),
    "would": ("audit: active would have sent it once more", "switch to active"),
    "windows": ("outages in which connects were tried again", "see when the origin was away"),
    "audit": ("audit mode sends nothing again", "switch to active"),
    "answer_began": ("a part of the answer had come", "the server fails: read its log"),
    "peer_had_it": (
        "the peer had the whole request, and closed later than replay_within_s",
        "the server fails on it: read its log",
    ),
    "switched_off": ("replay=off", "that is a setting of yours"),
    "fresh_connection": ("the connection was no reused one", "the origin itself fails"),
    "replayed_before": ("it was sent once more already", "the origin itself fails"),
    "method": (
        "POST, PATCH, or another method that is not idempotent",
        "send an Idempotency-Key where the server knows it",
    ),
    "precondition": ("If-Match and its like: a second answer might be false", NOTHING),
    "dialogue": ("Expect, Upgrade or Transfer-Encoding", NOTHING),
    "credential": ("a credential for one use", NOTHING),
    "identity": ("NTLM, Negotiate or Kerberos on the connection", NOTHING),
    "body": ("the body was not on record as a whole", "more than 1 MiB is not"),
    "half_sent": ("a send had failed before", NOTHING),
}

_FALLBACK_REMEDY = "urllib3 did it by itself; report it with its WARNING from the log"
_FALLBACK_REMEDIES = {
    "status_failed": "give it a directory of the user's: STALEPOOL_STATUS_DIR",
    "unknown_connection": "a class or socket that stalepool does not know: nothing is lost",
    "requests_unseen": "a library sends past http.client: checks hold, replay does not",
    "patch_missing": "a urllib3 that stalepool does not know: upgrade stalepool",
    "wrapped_by_others": "nothing to do",
    "hook_failed": "install wrapt for this Python, or see the WARNING in the log",
}


def words_for(name: str) -> str:
    """Return what a name that is counted means."""
    if name in {verdict.value for verdict in Verdict}:
        return Verdict(name).meaning
    return REASONS[name] if name in REASONS else EVENTS[name][0] if name in EVENTS else "?"


def remedy_for(name: str) -> str:
    """Return what to do about it."""
    if name in REASONS:
        return _FALLBACK_REMEDIES.get(name, _FALLBACK_REMEDY)
    return VERDICTS[name] if name in VERDICTS else EVENTS[name][1] if name in EVENTS else "?"


def explanation(services: List[Service]) -> str:
    """Explain every name that was counted in these services."""
    names: Set[str] = set()
    for service in services:
        if service.seen:
            counted = service.counted()
            for group in ("verdicts", "gone", "moved", "replays", "replays_refused", "reconnects"):
                names |= _counted(counted["totals"][group])
            names |= _counted(counted["fallbacks"])
    lines = ["%-18s %s\n%-18s -> %s" % (n, words_for(n), "", remedy_for(n)) for n in sorted(names)]
    return "\n".join(lines) or "nothing was counted"


def _counted(group: Dict[str, int]) -> Set[str]:
    return {name for name, number in group.items() if number}
