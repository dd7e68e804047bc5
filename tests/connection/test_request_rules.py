"""The rule tables alone: every row refuses what it is there for, and nothing else refuses."""

from __future__ import annotations

import errno
import socket
from time import monotonic
from types import SimpleNamespace
from typing import Any, Iterable, List

import pytest
import urllib3

from breaks import breaks
from stalepool.connection import request_rules
from stalepool.connection.request_rules import Attempt
from stalepool.connection.state import RECORD_LIMIT, SENDING, WAITING, Request
from stalepool.settings import Settings
from stalepool.stats import Knowledge

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY")
ALL_METHODS = (*SAFE, "PUT", "DELETE", "POST", "PATCH", "CONNECT", "LOCK", "")
POLICIES = ("off", "safe", "idempotent")


def knows(**facts: Any) -> Any:
    """The state of a connection, as far as the rules look at it."""
    knowledge = Knowledge()
    knowledge.has_answered = facts.pop("has_answered", True)
    knowledge.window_until = monotonic() + 60 if facts.pop("window_is_open", False) else None
    died_at = facts.pop("died_at", ())
    for seconds_ago, age_s in zip(range(200 * len(died_at), 0, -200), died_at):
        with breaks("clock of the counters", by=lambda ago=seconds_ago: monotonic() - ago):
            knowledge.note_fin(age_s)
    knowledge.untrue_limit_s = facts.pop("untrue_limit_s", None)
    if facts.pop("moves_are_stopped", False):
        knowledge.stop_moves()
    state = {
        "phase": WAITING,
        "is_bound": False,
        "idle_limit_s": None,
        "move_for": None,
        "sock": lambda: None,
        "idle_s": lambda info: IDLE_S,
        "origin": SimpleNamespace(knowledge=knowledge),
    }
    return SimpleNamespace(**{**state, **facts})


#: the connections of requests, which hold them weakly
_conns: List[Any] = []


def request_of(
    method: str = "GET",
    headers: Iterable[str] = (),
    body: Iterable[bytes] = (),
    is_reused: bool = True,
    is_replayed: bool = False,
) -> Request:
    """A request that has gone out."""
    conn = urllib3.connection.HTTPConnection("127.0.0.1")
    conn._method = method  # type: ignore[attr-defined]
    _conns[:] = [conn]
    head = "\r\n".join(["%s / HTTP/1.1" % method, "Host: x", *headers, "", ""])
    request = Request(conn, head.encode(), is_reused)
    for part in body:
        request.record(part)
    request.is_replayed = is_replayed
    return request


def attempt(replay: str = "idempotent", **facts: Any) -> Attempt:
    """An attempt that every rule consents to, with some facts otherwise."""
    of_request = ("method", "headers", "body", "is_reused", "is_replayed")
    request = request_of(**{name: facts.pop(name) for name in of_request if name in facts})
    return Attempt(Settings(replay=replay), knows(**facts), request)


def refusal(**facts: Any) -> Any:
    return request_rules.first_refusal(request_rules.REPLAY_RULES, attempt(**facts))


# -- may it be sent again? -----------------------------------------------------------------------


def test_a_get_whose_reused_connection_ended_is_sent_again():
    assert refusal() is None


LENGTH = "Content-Length: 10"
LARGE = b"x" * RECORD_LIMIT

REFUSED = [
    ("switched_off", {"replay": "off"}),
    ("fresh_connection", {"is_reused": False}),
    ("fresh_connection", {"is_reused": False, "window_is_open": True, "has_answered": False}),
    ("replayed_before", {"is_replayed": True}),
    ("method", {"method": "post"}),
    ("precondition", {"method": "PUT", "headers": ["If-Match: x"]}),
    ("precondition", {"method": "PUT", "headers": ["IF-NONE-MATCH:x"]}),
    ("precondition", {"method": "DELETE", "headers": ["if-unmodified-since : x"]}),
    ("precondition", {"method": "DELETE", "headers": ["If: (<urn:lock>)"]}),
    ("precondition", {"method": "PUT", "headers": ["Content-Range: bytes 0-9/20"]}),
    ("precondition", {"method": "PUT", "headers": ["x-goog-if-generation-match: 0"]}),
    ("dialogue", {"headers": ["Expect: 100-continue"]}),
    ("dialogue", {"headers": ["Upgrade: h2c"]}),
    ("dialogue", {"headers": ["Transfer-Encoding: chunked"], "phase": SENDING}),
    ("credential", {"headers": ["Authorization: OAuth oauth_nonce=x"]}),
    ("credential", {"headers": ["authorization:dpop x"]}),
    ("credential", {"headers": ["Authorization: Hawk id=x, nonce=x"]}),
    ("credential", {"headers": ["Authorization: EG1-HMAC-SHA256 client_token=x"]}),
    ("credential", {"headers": ["Proxy-Authorization: OAuth x"]}),
    ("identity", {"is_bound": True}),
    ("identity", {"headers": ["Authorization: NTLM x"]}),
    ("identity", {"headers": ["Authorization: Negotiate x"]}),
    ("identity", {"headers": ["Proxy-Authorization: Kerberos x"]}),
    ("body", {"body": [LARGE], "headers": ["Content-Length: %d" % len(LARGE)]}),
    ("body", {"body": [LARGE], "phase": SENDING}),
    ("body", {"body": [b"half"], "headers": [LENGTH]}),
    ("body", {"body": [b"4\r\nhalf\r\n"]}),  # in chunks
    ("body", {"body": [iter([b"once"])]}),
    ("body", {"body": [open], "phase": SENDING}),  # nobody saw what it was made of
]


@pytest.mark.parametrize(("name", "facts"), REFUSED)
def test_what_each_rule_refuses(name, facts):
    assert refusal(**facts) == name


@pytest.mark.parametrize(
    "facts",
    [
        {"method": "get"},
        {"is_reused": False, "window_is_open": True},
        {"method": "PUT", "body": [b"0123", b"456789"], "headers": [LENGTH]},
        {"method": "PUT", "body": [bytearray(b"0123"), memoryview(b"456789")], "headers": [LENGTH]},
        {"method": "PUT", "body": [b"half"], "headers": [LENGTH], "phase": SENDING},
        {"method": "POST", "headers": ["Idempotency-Key: k"]},
        {"method": "POST", "headers": ["x-idempotency-key: k"], "replay": "safe"},
        {"method": "PUT", "headers": ["If-Match: x", "Idempotency-Key: k"]},
        {"method": "PUT", "headers": ["If-Modified-Since: x", "If-Range: x"]},
        {"headers": ["If-Match: x", "If-None-Match: x", "If-Unmodified-Since: x", "If: x"]},
        {"headers": ["Authorization: Basic x"]},
        {"headers": ["Authorization: Bearer oauth"]},
        {"headers": ["X-Upgrade: h2c", "X-Note: Expect: 100-continue"]},
    ],
)
def test_what_is_sent_again(facts):
    assert refusal(**facts) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_methods_by_setting(policy):
    """Written out once more: this is what the documentation promises."""
    wanted = {"off": (), "safe": SAFE, "idempotent": (*SAFE, "PUT", "DELETE")}[policy]
    assert request_rules.METHODS[policy] == set(wanted)
    sent_again = {method for method in ALL_METHODS if refusal(method=method, replay=policy) is None}
    assert sent_again == set(wanted)


# -- is its body worth a record? -----------------------------------------------------------------

WORTH_IT = [
    {},
    {"method": "PUT"},
    {"is_reused": False, "window_is_open": True},
    {"method": "POST", "headers": ["Idempotency-Key: k"]},
    # a piece of its body is recorded, and the window has closed since
    {"is_reused": False, "body": [b"x"]},
]
#: it would not be sent again whatever happens, and may be large
NOT_WORTH_IT = [
    {"is_reused": False},
    {"body": [b"x" * (1 << 20)]},
    {"method": "POST"},
    {"method": "POST", "headers": ["X-Dempotency-Key: k"]},
    {"method": "PUT", "headers": ["Transfer-Encoding: chunked"]},
    {"method": "PUT", "headers": ["TRANSFER-ENCODING: chunked"]},
]


@pytest.mark.parametrize(
    ("facts", "is_worth_it"),
    [*((facts, True) for facts in WORTH_IT), *((facts, False) for facts in NOT_WORTH_IT)],
)
def test_a_body_is_recorded_where_it_may_be_sent_again(facts, is_worth_it):
    tried = attempt(**facts)
    assert request_rules.is_worth_a_record(tried.state, tried.request) is is_worth_it


# -- had the connection died? --------------------------------------------------------------------


class Pair:
    """Two ends of a connection, and the other end's failure that was met long after the request."""

    def __init__(self, replay_within_s: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.ours = socket.create_connection(listener.getsockname())
            self.peers, _ = listener.accept()
        self.settings = Settings(replay_within_s=replay_within_s)
        self.request = request_of()

    def refused_by(self, error: Any = None) -> Any:
        tried = Attempt(self.settings, knows(), self.request, self.ours, error)
        return request_rules.first_refusal(request_rules.DEATH_RULES, tried)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.ours.close()
        self.peers.close()


def test_what_has_ended_soon_had_died():
    with Pair(replay_within_s=60) as pair:
        pair.peers.close()
        assert pair.refused_by() is None


@pytest.mark.parametrize(
    "error",
    [
        socket.timeout("timed out"),
        ConnectionResetError(errno.ECONNRESET, "raised by somebody: the connection stands"),
        KeyboardInterrupt(),
        ValueError("a header"),
    ],
    ids=repr,
)
def test_what_stands_has_not_ended(error):
    with Pair(replay_within_s=60) as pair:
        assert pair.refused_by(error) == "not_ended"


def test_who_had_the_request_and_closed_late_has_failed_on_it():
    with Pair(replay_within_s=0) as pair:
        pair.ours.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert pair.peers.recv(100)
        pair.peers.close()
        assert pair.refused_by() == "peer_had_it"
        silent = OSError(errno.EHOSTUNREACH, "unreachable")  # the kernel gave up: nobody closed
        assert pair.refused_by(silent) is None


# -- may it ride an idle connection? -------------------------------------------------------------

IDLE_S = 100.0
OF_100 = {"died_at": (100.0, 101.0, 105.0)}

REASONS = [
    ("idle_setting", {"setting": 0}),
    ("idle_setting", {"setting": 99}),
    ("announced_limit", {"idle_limit_s": 99.0}),
    ("announced_limit", {"idle_limit_s": 101.0}),
    ("observed_limit", OF_100),
]

NO_REASONS = [
    {},
    {"setting": "off", "idle_limit_s": 99.0, **OF_100},
    {"setting": 101, "idle_limit_s": 99.0, **OF_100},
    {"idle_limit_s": 103.0},  # 2 s before it at most
    {"idle_limit_s": 70.0},  # it has outlived that
    {"died_at": (100.0, 101.0)},  # thrice, or it was chance
    {"died_at": (100.0, 101.0, 130.0)},
    {"died_at": (10.0, 10.0, 11.0)},  # it has outlived that
    {"died_at": (103.0, 104.0, 105.0)},
    {"untrue_limit_s": 99.0},  # of another connection
    {"untrue_limit_s": 99.0, "idle_limit_s": 99.0},
    {"moves_are_stopped": True, "idle_limit_s": 99.0, **OF_100},
    {"setting": 0, "headers": ["Idempotency-Key: k"]},
    {"setting": 0, "is_bound": True},
    *({"setting": 0, "method": method} for method in (*SAFE, "PUT", "DELETE")),
]


def reason(**facts: Any) -> Any:
    """The reason for which a POST, :data:`IDLE_S` after the last answer, takes a fresh socket."""
    chosen = Settings(nonidempotent_max_idle_s=facts.pop("setting", "auto"))
    of_request = {name: facts.pop(name) for name in ("method", "headers") if name in facts}
    request = request_of(**{"method": "POST", **of_request})
    return request_rules.reason_to_move(chosen, knows(**facts), request)


@pytest.mark.parametrize(("name", "facts"), [*REASONS, *((None, facts) for facts in NO_REASONS)])
def test_the_reasons_to_move(name, facts):
    assert reason(**facts) == name


def test_unanswered_probes_are_a_reason_for_whatever_it_is():
    """But for a connection that carries an identity."""
    for method in ALL_METHODS:
        facts = {"method": method, "setting": "off", "move_for": "probe_unanswered"}
        assert reason(**facts) == "probe_unanswered"
        assert reason(is_bound=True, **facts) is None


# -- what a header tells --------------------------------------------------------------------------

CHALLENGES = {
    "NTLM": True,
    "Negotiate": True,
    "Kerberos": True,
    'Basic realm="x", Negotiate': True,
    'Basic realm="x"': False,
    "Bearer": False,
    "": False,
}


@pytest.mark.parametrize("challenges", CHALLENGES)
def test_an_identity_that_is_offered(challenges):
    assert request_rules.offers_an_identity(challenges) is CHALLENGES[challenges]


HINTS = {"timeout=5": 5.0, "max=9, Timeout = 7": 7.0, "timeout=x": None, "max=9": None, "": None}


@pytest.mark.parametrize("hint", HINTS)
def test_the_seconds_of_a_keep_alive_hint(hint):
    assert request_rules.keep_alive_hint_s(hint) == HINTS[hint]
