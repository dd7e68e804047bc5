"""The rule tables alone: every row refuses what it is there for, and nothing else refuses."""

import errno
import functools
import socket
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import urllib3

from breaks import breaks
from delayed_answers import kernel_says
from pools import shim
from replay_tools import ToAUnixSocket
from stalepool import stats
from stalepool.connection import request_rules
from stalepool.connection.state import (
    MOST_IN_PIECES,
    RECORD_LIMIT,
    SENDING,
    WAITING,
    Request,
    in_pieces,
)
from stalepool.settings import Settings
from stalepool.sockets import keepalive
from stalepool.sockets.layers import layers_of
from stalepool.stats import Knowledge
from stalepool_testing import healthy, kernel, release, swallow, wait_readable

NOW = 1000.0  #: monotonic time, of what is learnt of an origin


@pytest.fixture(autouse=True)
def clock():
    with breaks("clock of what was learnt", by=lambda: NOW):
        yield


SAFE = ("GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY")


def request_with(
    replay="idempotent",
    within_s=2,
    phase=WAITING,
    method="GET",
    target="/",
    headers=(),
    body=(),
    is_reused=True,
    is_replayed=False,
    has_answered=True,
    window_is_open=False,
    swallows_probes=False,
    answers_probes=False,
    connection_class=urllib3.connection.HTTPConnection,
    **facts,
):
    """A request that every rule consents to, with some facts otherwise."""
    head = "\r\n".join(["%s %s HTTP/1.1" % (method, target), "Host: x", *headers, "", ""])
    knowledge = Knowledge()
    knowledge.has_answered = has_answered
    knowledge.window_until = NOW + 0.5 if window_is_open else None
    if swallows_probes:
        knowledge.note_probes_swallowed()
    if answers_probes:
        knowledge.note_probe_answered()
    # as far as the rules look at it
    state = {
        **{"phase": None, "is_bound": False, "sock": lambda: None, "answers": 0},
        **{"origin": SimpleNamespace(knowledge=knowledge), "conn": connection_class("a")},
    }
    state = SimpleNamespace(**{**state, **facts})
    settings = Settings(replay=replay, replay_within_s=within_s)
    request = Request(state, state.conn, head.encode(), settings)
    for part in body:
        request.record(part)
    request.is_reused, request.is_replayed = is_reused, is_replayed
    state.phase = phase
    return request


LENGTH = "Content-Length: 10"
LARGE = b"x" * RECORD_LIMIT

REFUSED = [
    ("switched_off", {"replay": "off"}),
    ("fresh_connection", {"is_reused": False}),
    ("fresh_connection", {"is_reused": False, "window_is_open": True, "has_answered": False}),
    # it was not checked out, so what is sent on it may be no request
    ("fresh_connection", {"is_reused": False, "window_is_open": True, "answers": 1}),
    ("replayed_before", {"is_replayed": True}),
    ("method", {"method": "POST"}),
    ("method", {"method": "get"}),  # a method's name is case-sensitive: RFC 9110, section 9.1
    ("precondition", {"method": "PUT", "headers": ["If-Match: x"]}),
    ("precondition", {"method": "PUT", "headers": ["IF-NONE-MATCH:x"]}),
    ("precondition", {"method": "DELETE", "headers": ["if-unmodified-since : x"]}),
    ("precondition", {"method": "DELETE", "headers": ["If: (<urn:lock>)"]}),
    ("precondition", {"method": "PUT", "headers": ["Content-Range: bytes 0-9/20"]}),
    ("precondition", {"method": "PUT", "target": "/v1/kv/a?dc=b&cas=7"}),
    ("precondition", {"method": "DELETE", "target": "/v1/kv/a?cas=7"}),
    ("precondition", {"method": "PUT", "target": "/v1/kv/a?release=id"}),
    ("precondition", {"method": "PUT", "target": "/_bulk"}),
    ("precondition", {"method": "PUT", "target": "/index/_bulk?refresh=true"}),
    ("precondition", {"method": "PUT", "target": "/webhdfs/v1/a?op=RENAME&destination=/b"}),
    ("precondition", {"method": "DELETE", "target": "/webhdfs/v1/a?op=DELETE"}),
    ("precondition", {"method": "DELETE", "target": "/v1/AUTH_a?bulk-delete"}),
    ("precondition", {"method": "DELETE", "target": "/v1/AUTH_a/c/o?multipart-manifest=delete"}),
    ("dialogue", {"headers": ["Expect: 100-continue"]}),
    ("dialogue", {"headers": ["Upgrade: h2c"]}),
    ("dialogue", {"headers": ["Transfer-Encoding: chunked"], "phase": SENDING}),
    ("identity", {"is_bound": True}),
    ("identity", {"headers": ["Authorization: NTLM x"]}),
    ("identity", {"headers": ["Authorization: Negotiate x"]}),
    ("identity", {"headers": ["Proxy-Authorization: Kerberos x"]}),
    ("identity", {"headers": ["authorization:credssp x"]}),
    ("body", {"body": [LARGE], "headers": ["Content-Length: %d" % len(LARGE)]}),
    ("body", {"body": [LARGE], "phase": SENDING}),
    ("body", {"body": [b"half"], "headers": [LENGTH]}),
    ("body", {"body": [b"4\r\nhalf\r\n"]}),  # in chunks
    ("body", {"body": [iter([b"once"])]}),
    ("body", {"body": [open], "phase": SENDING}),  # nobody saw what it was made of
    ("own_connect", {"connection_class": ToAUnixSocket}),
]


SENT_AGAIN = [
    {},
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
    {"headers": ["Authorization: Bearer ntlm"]},
    {"method": "PUT", "target": "/cas=x", "headers": ["X-Note: /?cas=x"]},
    {"method": "PUT", "target": "/a_bulk", "headers": ["X-Note: put /_bulk "]},
    {"method": "PUT", "target": "/webhdfs/v1/a?op=CREATE"},
    {"headers": ["X-Upgrade: h2c", "X-Note: Expect: 100-continue"]},
]


@pytest.mark.parametrize(("name", "facts"), [*REFUSED, *((None, facts) for facts in SENT_AGAIN)])
def test_what_is_sent_again_and_what_each_rule_refuses(name, facts):
    refusal = request_rules.first_refusal(request_rules.REPLAY_RULES, request_with(**facts))
    assert refusal == name


def test_a_request_that_is_not_followed_any_more_is_not_sent_again():
    """Another thread has closed its connection, or has installed anew."""
    request = request_with(origin=stats.origin("http://a:80"))
    assert not request_rules.may_be_replayed(request, None)


def test_methods_by_setting():
    """Written out once more: this is what the documentation promises."""
    wanted = {"off": (), "safe": SAFE, "idempotent": (*SAFE, "PUT", "DELETE")}
    assert {k: {m.encode() for m in v} for k, v in wanted.items()} == request_rules.METHODS


#: http.client sends a head in one piece of bytes; of a body any piece may look like one
SENT = [
    (True, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    (True, b"M-SEARCH * HTTP/1.0\r\n\r\n"),
    (False, b"GET / HTTP/1.1"),
    (False, b"GET / HTTP/2.0\r\n\r\n"),
    (False, bytearray(b"GET / HTTP/1.1\r\n\r\n")),
    (False, iter([b"GET / HTTP/1.1\r\n\r\n"])),
]


@pytest.mark.parametrize(("begins", "data"), SENT)
def test_what_begins_a_request(begins, data):
    assert bool(request_rules.begins_a_request(data)) is begins


WORTH_A_RECORD = [
    (True, {}),
    (True, {"method": "PUT"}),
    (True, {"method": "PUT", "headers": ["X-Note: chunked"]}),
    (True, {"is_reused": False, "window_is_open": True}),
    (True, {"method": "POST", "headers": ["Idempotency-Key: k"]}),
    # one piece of its body is recorded; that of a body in pieces would be its only copy
    (True, {"method": "PUT", "body": [b"x"]}),
    (True, {"method": "PUT", "body": [b"x", b"x"]}),
    (False, {"method": "PUT", "body": [b"x"], "headers": ["Content-Range: bytes 0-9/20"]}),
    (False, {"method": "PUT", "body": [b"x"], "headers": ["Transfer-Encoding: chunked"]}),
    # it would not be sent again whatever happens, and may be large
    (False, {"is_reused": False}),
    (False, {"body": [LARGE]}),
    (False, {"method": "POST"}),
    (False, {"method": "PUT", "replay": "safe"}),
    (False, {"replay": "off"}),
    (False, {"method": "POST", "headers": ["X-Dempotency-Key: k"]}),
]


@pytest.mark.parametrize(("is_worth_it", "facts"), WORTH_A_RECORD)
def test_a_body_is_recorded_where_it_may_be_sent_again(is_worth_it, facts):
    assert request_rules.is_worth_a_record(request_with(**facts)) is is_worth_it


def test_so_many_bodies_in_pieces_are_recorded_at_a_time():
    """Nobody else keeps the pieces of a file's body. One that fails, or is too large, goes."""
    in_pieces.clear()  # those of other tests stay until the collector comes
    put, pieces = functools.partial(request_with, method="PUT"), [b"x", b"x"]
    recorded = [put(body=pieces) for _ in range(MOST_IN_PIECES)]
    another, of_one_piece = put(body=[b"x"]), put()
    assert not request_rules.is_worth_a_record(another)
    assert request_rules.is_worth_a_record(of_one_piece)
    recorded.pop().give_up()
    assert request_rules.is_worth_a_record(another)
    another.record(b"x")
    assert not request_rules.is_worth_a_record(put(body=[b"x"]))
    for request in (another, *recorded):
        request.record(LARGE)
    assert request_rules.is_worth_a_record(put(body=[b"x"]))


def test_after_an_install_or_a_fork_none_of_the_bodies_before_counts():
    """They are not sent again; and a forked child has the frames of threads that are gone."""
    before = [request_with(method="PUT", body=[b"x", b"x"]) for _ in range(MOST_IN_PIECES)]
    another = request_with(method="PUT", body=[b"x"])
    assert not request_rules.is_worth_a_record(another)
    with shim():
        assert request_rules.is_worth_a_record(another) and before


def forgotten(pair):
    """The peer's kernel forgets the connection, its RST is lost, and a probe draws another one."""
    taken_apart = layers_of(pair.client)
    keepalive.apply_policy(taken_apart, Settings())
    keepalive.probe_every(taken_apart, 1)
    swallow(pair.client)
    kernel.reset(pair.peer)
    release(pair.client)
    wait_readable(pair.client, events=kernel.POLLRDHUP)


ACTS = {
    "asked": lambda pair: pair.client.sendall(b"GET / HTTP/1.1\r\n\r\n"),
    "read": lambda pair: pair.peer.recv(100),
    "lost": lambda pair: swallow(pair.peer),
    "answered": lambda pair: pair.peer.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n"),
    "ended": lambda pair: [pair.peer.close(), wait_readable(pair.client, events=kernel.POLLRDHUP)],
    "forgotten": forgotten,
}

ENDED = "asked, read, ended"
LATE = {"within_s": 0}
RESET = {"error": ConnectionResetError(errno.ECONNRESET, "reset")}
FORGOTTEN = {**RESET, **LATE}
KEYED = {"method": "PUT", "headers": ["Idempotency-Key: k"], **FORGOTTEN}
UNREACHABLE = {"error": OSError(errno.EHOSTUNREACH, "unreachable"), **LATE}
GIVEN_UP = {
    "error": OSError(errno.ETIMEDOUT, "timed out"),
    "said": {"state": 7, "probes": 42, "bytes_acked": 1},  # 7: closed
    **LATE,
}
PUT_GIVEN_UP = {"method": "PUT", **GIVEN_UP}

#: who refuses, what has happened, and what the request is, its ``error`` what was raised
DEATHS = {
    "ended soon": (None, ENDED, {}),
    "lives": ("not_ended", "asked, read", RESET),
    "had the request, ended late": ("peer_had_it", ENDED, LATE),
    "lacked a part of it": (None, "lost, asked, ended", LATE),
    "the kernel gave up: nobody closed": (None, ENDED, UNREACHABLE),
    "probes were unanswered": (None, ENDED, GIVEN_UP),
    "swallowed, so it may live": ("peer_had_it", ENDED, {"swallows_probes": True, **GIVEN_UP}),
    # nor is it known whether they are swallowed
    "the same, PUT, which may be in work": ("peer_had_it", ENDED, PUT_GIVEN_UP),
    "the same, PUT, probes answered": (None, ENDED, {"answers_probes": True, **PUT_GIVEN_UP}),
    "answered early": ("answer_began", "answered, ended", {"phase": SENDING}),
    # for the caller, too, who reads it
    "answered while that is awaited": (None, "answered, ended", {}),
    "its host does not know the connection": (None, "asked, read, forgotten", FORGOTTEN),
    # a peer that lives all the same might act on it after the caller's next request
    "the same, PUT": ("peer_had_it", "asked, read, forgotten", {"method": "PUT", **FORGOTTEN}),
    "the same, PUT with a key": (None, "asked, read, forgotten", KEYED),
    "a Unix socket tells nothing": (
        "peer_had_it",
        ENDED,
        {"family": socket.AF_UNIX, **LATE},
    ),
}


@pytest.mark.parametrize("case", DEATHS)
def test_had_the_connection_died(case):
    """More of that: ``test_failure``."""
    name, happened, facts = DEATHS[case]
    facts = {"within_s": 60, **facts}
    said, error = facts.pop("said", None), facts.pop("error", None)
    family = facts.pop("family", socket.AF_INET)
    with healthy(family=family) as pair, kernel_says(**said) if said else nullcontext():
        for act in happened.split(", "):
            ACTS[act](pair)
        request = request_with(sock=lambda: pair.client, **facts)
        assert request_rules.first_refusal(request_rules.DEATH_RULES, request, error) == name


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [
        *(("timeout=5", 5.0), ("max=9, Timeout = 7", 7.0)),
        *(("timeout=0", None), ("timeout=\xb2, \xff=;", None), ("max=9", None), ("", None)),
    ],
)
def test_the_seconds_of_a_keep_alive_hint(hint, seconds):
    assert request_rules.keep_alive_hint_s(hint) == seconds
