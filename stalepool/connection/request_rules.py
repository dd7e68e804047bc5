"""Rules: had the connection died? May the request be sent again? Is an answer a refusal?

RFC 9110, section 9.2.2, permits a client to repeat idempotent methods, and others only if the first
request is known not to have been applied.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Callable, Dict, FrozenSet, Optional

from stalepool import fallback
from stalepool.clock import monotonic
from stalepool.connection.fresh_socket import may_be_cloned
from stalepool.connection.state import MOST_IN_PIECES, SENDING, Request, in_pieces
from stalepool.sockets import failure, tcp_info
from stalepool.sockets.layers import layers_of

# RFC 9110, section 9.2.1, and what IANA's method registry calls safe
SAFE = frozenset(b"GET HEAD OPTIONS TRACE PROPFIND REPORT SEARCH QUERY".split())
IDEMPOTENT = SAFE | {b"PUT", b"DELETE"}  # section 9.2.2

#: replay setting -> methods that may be sent again, even if the server acted on the first sending
METHODS: Dict[str, FrozenSet[bytes]] = {"off": frozenset(), "safe": SAFE, "idempotent": IDEMPOTENT}


def _search(pattern: bytes, *words: str) -> Callable[[bytes], Any]:
    return re.compile(pattern % b"|".join(map(str.encode, words))).search


_header = functools.partial(_search, rb"\r\n(?:%s)[ \t]*:")

# token, target, version: RFC 9112, section 3; bounded, or a body without spaces is searched whole
_is_a_request_line = re.compile(rb"[\w!#$%&'*+.^`|~-]{1,64} [!-~]{1,65536} HTTP/1\.[01]\r\n").match
_key_header = _header("idempotency-key", "x-idempotency-key")
#: framing that is a dialogue with the server, or that cannot be produced a second time
_is_a_dialogue = _header("expect", "upgrade", "transfer-encoding")
#: if the first sending succeeded, the second is refused, or answered as if there had been none; in
#: the URL: Elasticsearch's, Consul's, Swift's and WebHDFS's
_has_a_precondition = _search(
    rb"\r\n(?:%s)[ \t]*:|^put \S*/_bulk/?[? ]|^\S+ \S*[?&](?:cas=|release=|bulk-delete"
    rb"|multipart-manifest=delete|op=(?:delete|rename)\b)",
    *("if-match", "if-none-match", "if-unmodified-since", "if", "content-range"),
)
#: schemes that authenticate a connection and not a request (RFC 4559, MS-NTHT)
_IDENTITY_SCHEMES = ("ntlm", "negotiate", "kerberos", "credssp")
_SPEAKS = rb"\r\n(?:proxy-)?authorization[ \t]*:[ \t]*(?:%s)\b"
speaks_an_identity = _search(_SPEAKS, *_IDENTITY_SCHEMES)
#: searches the challenges of a 401 or 407
offers_an_identity = re.compile("|".join(_IDENTITY_SCHEMES), re.IGNORECASE).search
asks_for_an_upgrade = _header("upgrade")

#: name in the counters -> does it permit a replay? DEATH_RULES are given what was raised, too
Rules = Dict[str, Callable[..., Any]]


def _may_be_stale(request: Request) -> bool:
    """Tell whether the connection was reused, or its origin's reconnect window is open."""
    if request.is_reused:
        return True
    knowledge = request.state.origin.knowledge
    return not request.state.answers and knowledge.has_answered and knowledge.window_is_open


def has_a_key(request: Request) -> bool:
    """Tell whether the server is asked to act on the request once, however often it comes."""
    # find(), since "in" raises and clears a TypeError inside CPython
    return request.head.find(b"dempotency-") >= 0 and bool(_key_header(request.head))


def may_be_repeated(request: Request, replay: str) -> bool:
    """Tell whether ``replay`` permits the method, or the request has an idempotency key."""
    return request.method in METHODS[replay] or has_a_key(request)


#: may this request be sent a second time, whatever happened to its connection?
REPLAY_RULES: Rules = {
    "switched_off": lambda request: request.settings.replay != "off",
    "fresh_connection": _may_be_stale,
    "replayed_before": lambda request: not request.is_replayed,
    "method": lambda request: may_be_repeated(request, request.settings.replay),
    "precondition": lambda r: may_be_repeated(r, "safe") or not _has_a_precondition(r.head),
    "dialogue": lambda request: not _is_a_dialogue(request.head),
    "identity": lambda r: not (r.state.is_bound or speaks_an_identity(r.head)),
    # not whole yet after a failed send: urllib3 sends the rest by itself
    "body": lambda r: r.is_recorded and (r.state.phase is SENDING or r.is_whole),
    "own_connect": lambda request: may_be_cloned(request.conn()),
}

#: those that are decided once the head is out
_OF_THE_HEAD = {n: REPLAY_RULES[n] for n in REPLAY_RULES if n not in ("body", "own_connect")}


def begins_a_request(data: Any) -> Any:
    """Tell whether data is the head of a request; a piece of a body may look like one."""
    return type(data) is bytes and _is_a_request_line(data)


def is_worth_a_record(request: Request) -> bool:
    """Tell whether the next piece of the request's body may be needed for a replay."""
    pieces = len(request.sent)  # of the request; the first is its head
    if not request.is_recorded or pieces > 2:
        return request.is_recorded
    if pieces == 1:  # the next one may be the whole body, as with most: little is asked
        return _may_be_stale(request) and may_be_repeated(request, request.settings.replay)
    return len(in_pieces) < MOST_IN_PIECES and first_refusal(_OF_THE_HEAD, request) is None


def first_refusal(rules: Rules, *facts: Any) -> Optional[str]:
    """Return the name of the first of the rules that refuses a replay; None if none does."""
    return next((name for name, holds in rules.items() if not holds(*facts)), None)


#: bytes of a TLS alert with its record: OpenSSL sends one when it reads a FIN without close_notify
ALERT_WITH_RECORD = 100


def _was_dead(request: Request, error: Optional[BaseException]) -> bool:
    """Tell whether the end came soon, the peer was silent, or lacked a part of the request.

    A dead connection shows within two round trips. A peer that closes later failed on the request.
    But a RST in answer to a keepalive probe is of a host that does not know the connection; and
    where probes are swallowed, the kernel gives up on living peers, too. Where that is not known, a
    PUT that was acknowledged may be in work.
    """
    if monotonic() - request.sent_at <= request.settings.replay_within_s:
        return True
    is_silent, is_safe = failure.is_silent_end(error), may_be_repeated(request, "safe")
    knowledge = request.state.origin.knowledge
    if is_silent and (knowledge.answers_probes or is_safe) and not knowledge.swallows_probes:
        return True
    layers = layers_of(request.state.sock())
    info = tcp_info.ask(layers)
    if layers is None or info is None:
        return False
    # by a host that does not know it; but the peer may live all the same, and act on a PUT later
    is_reset_by_probe = info.probes > 0 and not is_silent
    lacks_a_part = info.missing > (0 if layers.pending is None else ALERT_WITH_RECORD)
    return (is_reset_by_probe and is_safe) or lacks_a_part


def _no_answer_has_begun(request: Request, error: Optional[BaseException]) -> bool:
    """Tell whether no answer, such as an early 413, lies unread after a failed send."""
    return request.state.phase is not SENDING or not failure.answer_has_begun(request.state.sock())


#: had the connection died, or did the server fail on the request?
DEATH_RULES: Rules = {
    "answer_began": _no_answer_has_begun,
    "not_ended": lambda request, error: failure.has_ended(request.state.sock(), error),
    "peer_had_it": _was_dead,
}


@fallback.guarded("replay_failed", default=False)
def may_be_replayed(request: Request, error: Optional[BaseException]) -> bool:
    """Tell whether a failed request may be replayed; if not, count and log why.

    Call it while the socket is open. In audit mode no request may be replayed.

    :param error: what was raised; None where reading the answer found the end.
    """
    if not request.is_followed:
        return False
    origin = request.state.origin
    refusal = first_refusal(DEATH_RULES, request, error) or first_refusal(REPLAY_RULES, request)
    if refusal == "not_ended":
        return False  # no failure of the connection: the caller's timeout, for example
    is_silent = failure.is_silent_end(error)
    origin.count("gone", "silent_in_request" if is_silent else "failed_in_request")
    if refusal is None and not request.settings.is_audit:
        return True
    origin.count(*(("replays", "would") if refusal is None else ("replays_refused", refusal)))
    text = "%s: %s failed with %r, not sent once more: %s"
    args = (origin.name, str(request.method, "latin-1"), error, refusal or "audit")
    fallback.log("replay", "DEBUG", text, *args)
    return False


#: answers that may refuse one of two sendings that are in work, or one connection of two
REFUSE_ONE_OF_TWO = frozenset((409, 429, 503))


def is_a_success(status: int) -> bool:
    """Tell whether an answer to a second sending is the caller's. The others: docs/replay.rst."""
    return 200 <= status < 300 or status == 304


def status_of(first: bytes) -> int:
    """Return the status of an answer by its first bytes, such as ``HTTP/1.1 503``; 0 without."""
    digits = first[9:12]
    return int(digits) if digits.isdigit() else 0


_timeout_of_a_hint = re.compile(r"(?:^|,)\s*timeout\s*=\s*([0-9]+)\s*(?:,|$)", re.IGNORECASE).search


def keep_alive_hint_s(value: str) -> Optional[float]:
    """Return the seconds in a ``Keep-Alive`` header (RFC 2068, 19.7.1.1); None where it has none.

    0 counts as none: some servers round down, so it may be anything below a second.

    >>> keep_alive_hint_s("timeout=5, max=100")
    5.0
    """
    found = _timeout_of_a_hint(value)
    return (float(found[1]) or None) if found else None
