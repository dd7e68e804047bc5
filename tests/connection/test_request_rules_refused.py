"""Requests that must not be replayed, or cannot be sent a second time, whole."""

import array
import functools
import io
import socket
from typing import Any, Callable, Dict, NamedTuple

import pytest

import stalepool
import stalepool_testing as testing
from oracle import LARGE, SMALL_BUFFERS, RefuseEarly
from pools import DEFAULTS, counters, pooled_connection, shim, stops_moves, wait_idle
from replay_tools import (
    ECHO,
    Late,
    ToAUnixSocket,
    asked,
    kind_of,
    outcome,
    reused,
    send,
    side_by_side,
)
from stalepool_testing import Close, ProcessThenClose, ProcessThenReset, Reset, Respond, Silence

pytestmark = pytest.mark.usefixtures("defaults")


class Case(NamedTuple):
    """``counted``: the rule that refuses a replay, or what became of it."""

    counted: str
    method: str = "GET"
    sent: Dict[str, Any] = {}
    step: testing.Step = ProcessThenClose()
    settings: Dict[str, Any] = {}
    options: Dict[str, Any] = {}


def headers(**fields):
    return {"headers": {name.replace("_", "-"): value for name, value in fields.items()}}


def late(step, **options):
    """A gateway gives up (FIN), or a request kills its worker (RST)."""
    settings = {"replay_within_s": 0.1}
    return Case("peer_had_it", step=Late(step, 0.3), settings=settings, options=options)


OF_ITS_OWN = {"connection_class": ToAUnixSocket}
POOLED = "pooled before the shim came"
#: of each rule a row; test_request_rules has all there is to a head
CASES = {
    "HEAD": Case("ok", "HEAD"),
    "POST, Idempotency-Key": Case("ok", "POST", headers(Idempotency_Key="3f5c")),
    "GET, where safe ones are": Case("ok", settings={"replay": "safe"}),
    "audit": Case("would", settings={"mode": "audit"}),
    "off": Case("switched_off", settings={"replay": "off"}),
    "a first request": Case("fresh_connection", options={"times": 0}),
    POOLED: Case("fresh_connection", options={"times": 0}),
    "POST": Case("method", "POST"),
    "PUT, If-None-Match": Case("precondition", "PUT", headers(If_None_Match="*")),
    "NTLM": Case("identity", sent=headers(Authorization="NTLM TlRMTVNTUAAB")),
    "Expect": Case("dialogue", "PUT", headers(Expect="200-ok")),
    "Upgrade": Case("dialogue", sent=headers(Upgrade="tcp", Connection="Upgrade")),
    "a connect of its own": Case("own_connect", options=OF_ITS_OWN),
    "the same, audit": Case("own_connect", settings={"mode": "audit"}, options=OF_ITS_OWN),
    "an early 413": Case("answer_began", "PUT", {"body": LARGE}, RefuseEarly(), {}, SMALL_BUFFERS),
    "a late FIN": late(Close()),
    "a late RST": late(Reset()),
    "a late FIN in TLS": late(Close(), tls="TLSv1.3"),
    "a late RST in TLS": late(Reset(), tls="TLSv1.3"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_answer_that_is_lost(name):
    case = CASES[name]
    with shim(**{**DEFAULTS, **case.settings}), reused(case.step, **case.options) as (server, pool):
        if name == POOLED:
            testing.into_pool(pool, server.connect())
        is_saved = case.counted == "ok"
        assert (send(server, pool, case.method, **case.sent).status == 200) is is_saved
        assert asked(server) == 1 + is_saved
        counted = counters(server)
        assert {**counted["replays"], **counted["replays_refused"]} == {case.counted: 1}
        assert not stops_moves(server)  # it had not moved


#: how a POST ends on its fresh connection
MET = {
    "an early 413": CASES["an early 413"],
    "an end": Case("fresh_connection", step=Close()),
    "none within the caller's timeout": Case("", step=Silence(), sent={"timeout": 0.3}),
}


@pytest.mark.parametrize("name", MET)
def test_what_stops_moves(name):
    case = MET[name]
    with reused(case.step, **case.options) as (server, pool):
        stalepool.install(**{**DEFAULTS, "nonidempotent_max_idle_s": 0})
        send(server, pool, "POST", **case.sent)
        counted = counters(server)
        assert counted["moved"] == {"idle_setting": 1}
        assert set(counted["replays_refused"]) == {case.counted} - {""}
        assert stops_moves(server)


@pytest.mark.parametrize("version", [None, "TLSv1.3"])
@pytest.mark.parametrize("how", ["SHUT_RDWR", "SHUT_WR", "SHUT_RD"])
def test_a_request_that_another_thread_aborts_is_asked_once(version, how, request):
    """The peer answers our FIN with its own, or with an RST, at once."""

    def abort(server, sock):
        server.journal.wait(lambda journal: len(journal.processed(path="/wanted")) == 1)
        socket.socket.shutdown(sock, getattr(socket, how))

    for method in ("GET", "PUT") * (25 if request.config.getoption("--full") else 2):
        with reused(Silence(), tls=version) as (server, pool):
            ask = functools.partial(send, server, pool, method)
            sock = pooled_connection(pool).sock
            seen, _ = side_by_side([ask, functools.partial(abort, server, sock)])
            assert seen.error is not None and seen.arrivals == 1, (method, seen)


def test_a_bound_connections_requests_are_not_sent_on_another():
    """NTLM's identity is the connection's, whatever the reason to move: a limit, or the clock."""
    challenges = ["NTLM", "NTLM TlRMTVNTUAAC"]
    handshake = [Respond(401, headers={"WWW-Authenticate": each}) for each in challenges]
    handshake.append(Respond(200, headers={"Keep-Alive": "timeout=1"}))
    with reused(*handshake, Respond(), Respond(), ProcessThenReset()) as (server, pool):
        for fields in ({}, headers(Authorization="NTLM AAAB"), headers(Authorization="NTLM AAAD")):
            pool.request("POST", "/login", **fields)
        # after the handshake, which takes longer than these on a busy machine
        stalepool.install(nonidempotent_max_idle_s=0.1, max_idle_s=0.2)
        wait_idle(pool, 0.8)
        assert [outcome(pool, method) for method in ("POST", "GET")] == [200, 200]
        assert isinstance(outcome(pool, "GET"), list)
        assert asked(server) == 3
        assert len(server.journal.connections) == 1


CONTENT = b"0123456789"
LENGTH = headers(Content_Length="10")
#: with its head more than the megabyte that is recorded
TOO_LARGE = CONTENT * 105_000
NUMBERS = array.array("I", range(1000))
#: by the one or the other: whether the connection ends while chunks are sent is chance
CHUNKED = "body or dialogue"


class Body(NamedTuple):
    """``make``: a new one for each request. ``refused_by``: "" where it is sent again."""

    make: Callable[[], Any]
    refused_by: str = ""
    arrives: bytes = CONTENT
    options: Dict[str, Any] = {}


def from_4():
    file = io.BytesIO(b"0123" + CONTENT)
    file.seek(4)
    return file


def once():
    yield CONTENT[:5]
    yield CONTENT[5:]


BODIES = {
    "none": Body(lambda: None, arrives=b""),
    "empty": Body(lambda: b"", arrives=b""),
    "bytes": Body(lambda: CONTENT),
    "text": Body(lambda: "0123456789"),
    "bytearray": Body(lambda: bytearray(CONTENT)),
    "memoryview": Body(lambda: memoryview(CONTENT), options=LENGTH),
    "a megabyte": Body(lambda: CONTENT * 100_000, arrives=CONTENT * 100_000),
    "more than a megabyte": Body(lambda: TOO_LARGE, "body", TOO_LARGE),
    "file, from 4": Body(from_4, options=LENGTH),
    "generator": Body(once, options=LENGTH),
    "file without a length": Body(from_4, CHUNKED),
    "array": Body(lambda: NUMBERS, CHUNKED, NUMBERS.tobytes()),
    "view of an array": Body(lambda: memoryview(NUMBERS), arrives=NUMBERS.tobytes()),
    "text file": Body(lambda: io.StringIO("0123456789"), CHUNKED),
    "list": Body(lambda: [b"01234", b"56789"], CHUNKED),
    "chunked": Body(lambda: CONTENT, CHUNKED, options={"chunked": True}),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies(body):
    """Each arrives on a connection that lives; on one that ends it is sent again, if it may be."""
    with reused(ECHO, Close()) as (server, pool):
        outcome = send(server, pool, "PUT", body=body.make(), **body.options)
        assert outcome == (200, True, None, 1, 1)
        outcome = send(server, pool, "PUT", body=body.make(), **body.options)
        assert [entry.connection for entry in server.journal][:3] == [0, 0, 0]
        assert {entry.body for entry in server.journal if entry.processed} == {b"", body.arrives}
        if not body.refused_by:
            assert outcome == (200, True, None, 2, 1)
            assert counters(server)["replays"] == {"ok": 1}
        else:
            assert (kind_of(outcome.error), outcome.arrivals) == ("connection", 1)
            ((refusal, count),) = counters(server)["replays_refused"].items()
            assert refusal in body.refused_by.split(" or ") and count == 1
