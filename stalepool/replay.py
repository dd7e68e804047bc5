"""May a request that failed be sent a second time? A pure table of rules.

A request is sent again only if the server cannot be harmed by acting on it twice: RFC 9110,
section 9.2.2, lets a client repeat an idempotent method by itself, and nothing else unless it knows
that the first try was not applied. Every rule has to consent, or the error reaches the caller
untouched.
That a replay is not replayed needs no rule: it goes out on a fresh connection, and a fresh
connection has answered nothing yet.

What is known when the question comes up is in :class:`Failure`; nothing here asks anybody anything.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, Mapping, NamedTuple, Optional, Tuple

from stalepool import errors

SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))  # RFC 9110, section 9.2.1
IDEMPOTENT = SAFE | {"PUT", "DELETE"}  # section 9.2.2

#: replay setting -> the methods that may be sent again whatever the server did with the first
METHODS: Dict[str, FrozenSet[str]] = {
    "off": frozenset(),
    "safe": SAFE,
    "idempotent": IDEMPOTENT,
    "evidence": IDEMPOTENT,
}

#: a second try of such a request would be told 412 because the first one succeeded
_PRECONDITIONS = frozenset(("if-match", "if-none-match", "if-unmodified-since"))
#: framing that is a dialogue with the server, or that cannot be produced a second time
_DIALOGUES = frozenset(("expect", "upgrade", "transfer-encoding"))
_IDEMPOTENCY_KEY = "idempotency-key"


class Request(NamedTuple):
    """The part of a request the rules look at."""

    method: str  # upper case
    header_names: FrozenSet[str]  # lower case
    body: Any
    body_start: Optional[int]  # where a seekable body began; None for other bodies
    chunked: bool


class Failure(NamedTuple):
    """What is known of a request that failed."""

    request: Request
    policy: str  # the replay setting
    was_reused: bool  # the socket had answered a request before this one
    answer_began: bool  # a byte of the response has arrived at the HTTP layer
    errors: Tuple[BaseException, ...]  # what was raised, and what made it: errors.chain()
    never_read: bool  # evidence: the server closed before it read a byte of the request
    time_left_s: Optional[float]  # of what one attempt was allowed to take; None: no limit


class Rule(NamedTuple):
    """``refusal``: its name in the counters. ``consents``: whether it lets the request be sent."""

    refusal: str
    consents: Callable[[Failure], bool]


def _is_about_the_connection(failure: Failure) -> bool:
    return any(errors.is_the_connections_end(error) for error in failure.errors)


def _can_send_the_body_again(failure: Failure) -> bool:
    body = failure.request.body
    return body is None or isinstance(body, (bytes, str)) or failure.request.body_start is not None


def _is_one_whole_message(failure: Failure) -> bool:
    request = failure.request
    # urllib3 sends a file without a length in chunks
    is_chunked = request.chunked or (
        request.body_start is not None and "content-length" not in request.header_names
    )
    return not is_chunked and not request.header_names & _DIALOGUES


def _may_be_acted_on_twice(failure: Failure) -> bool:
    request, methods = failure.request, METHODS[failure.policy]
    return is_repeatable(request, methods) or (failure.policy == "evidence" and failure.never_read)


def _has_no_precondition(failure: Failure) -> bool:
    names = failure.request.header_names
    return not names & _PRECONDITIONS or _IDEMPOTENCY_KEY in names


def _has_time_left(failure: Failure) -> bool:
    return failure.time_left_s is None or failure.time_left_s > 0


RULES = (
    Rule("switched_off", lambda failure: failure.policy != "off"),
    Rule("fresh_connection", lambda failure: failure.was_reused),
    Rule("answer_began", lambda failure: not failure.answer_began),
    Rule("other_failure", _is_about_the_connection),
    Rule("body", _can_send_the_body_again),
    Rule("framing", _is_one_whole_message),
    Rule("method", _may_be_acted_on_twice),
    Rule("precondition", _has_no_precondition),
    Rule("no_time_left", _has_time_left),
)


def refusal(failure: Failure) -> Optional[str]:
    """The name of the first rule that refuses a replay; None if the request may be sent again."""
    for rule in RULES:
        if not rule.consents(failure):
            return rule.refusal
    return None


def is_replayable(request: Request, policy: str) -> bool:
    """Whether every rule that is about the request alone would let it be sent once more."""
    at_best = Failure(request, policy, True, False, (), False, None)
    return all(rule.consents(at_best) for rule in RULES if rule.refusal != "other_failure")


#: what keeps a request without a body from being replayed, by the rules
_NOT_PLAIN = _DIALOGUES | _PRECONDITIONS


def is_plain(headers: Optional[Mapping[Any, Any]]) -> bool:
    """Whether a request of a repeatable method, without a body, may be replayed."""
    return not any(_text(name).lower() in _NOT_PLAIN for name in headers or ())


def is_repeatable(request: Request, methods: FrozenSet[str] = IDEMPOTENT) -> bool:
    """Whether acting on it twice is acting on it once, by method or by ``Idempotency-Key``."""
    return request.method in methods or _IDEMPOTENCY_KEY in request.header_names


def describe(
    method: str,
    headers: Optional[Mapping[Any, Any]],
    body: Any,
    body_start: Optional[int],
    chunked: Any,
) -> Request:
    """What the rules want to know of a request. ``body_start``: see :func:`position`."""
    names = frozenset(_text(name).lower() for name in headers or ())
    return Request(method.upper(), names, body, body_start, bool(chunked))


def _text(name: Any) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def position(body: Any) -> Optional[int]:
    """Where a seekable body stands before it is sent; None where it cannot be put back there."""
    if body is None or isinstance(body, (bytes, str)) or not hasattr(body, "seek"):
        return None
    try:
        position: int = body.tell()
        body.seek(position)
    except (OSError, ValueError, AttributeError):
        return None
    return position
