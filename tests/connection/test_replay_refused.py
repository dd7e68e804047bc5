"""Requests that must not be replayed, or cannot be sent a second time, whole."""

from __future__ import annotations

import array
import contextlib
import functools
import io
import socket
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional

import pytest
import urllib3

import replay_tools
import stalepool
import stalepool_testing as testing
from pools import counters, pooled_connection, shim, wait_idle
from replay_tools import ECHO, NO_ANSWER, Late, Outcome, asked, kind_of, outcome, reused, send
from stalepool_testing import Close, ProcessThenClose, ProcessThenReset, Reset, Respond, Silence

pytestmark = pytest.mark.usefixtures("defaults")


class Case(NamedTuple):
    """``refused_by``: the rule that refuses a replay, as it is counted; "": there is one."""

    method: str
    headers: Dict[str, str] = {}
    refused_by: str = ""


#: of each rule a row; test_request_rules has all there is to a head
CASES = {
    "POST": Case("POST", {}, "method"),
    "PUT, If-None-Match": Case("PUT", {"If-None-Match": "*"}, "precondition"),
    "OAuth 1": Case("GET", {"authorization": 'oauth oauth_nonce="7"'}, "credential"),
    "NTLM": Case("GET", {"Authorization": "NTLM TlRMTVNTUAAB"}, "identity"),
    "Expect": Case("PUT", {"Expect": "200-ok"}, "dialogue"),
    "Upgrade": Case("GET", {"Upgrade": "tcp", "Connection": "Upgrade"}, "dialogue"),
    "HEAD": Case("HEAD"),
    "a method in lower case": Case("get"),
    "POST, Idempotency-Key": Case("POST", {"Idempotency-Key": "3f5c"}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_answer_that_is_lost(name: str) -> None:
    case = CASES[name]
    with reused(ProcessThenClose()) as (server, pool):
        body = b"put" if case.method in ("POST", "PUT") else None
        seen = outcome(pool, case.method, headers=case.headers, body=body)
        assert (seen, asked(server)) == ((NO_ANSWER, 1) if case.refused_by else (200, 2))
        refused = {case.refused_by: 1} if case.refused_by else {}
        assert counters(server)["replays_refused"] == refused


@pytest.mark.parametrize("step", [Late(Close(), 0.3), Late(Reset(), 0.3)], ids=["FIN", "RST"])
@pytest.mark.parametrize("version", [None, "TLSv1.3"])
def test_a_server_that_fails_on_a_request_is_not_asked_again(
    version: Any, step: testing.Step
) -> None:
    """A gateway that gives up (FIN), a worker that the request kills (RST)."""
    stalepool.install(replay_within_s=0.1)
    with reused(step, tls=version) as (server, pool):
        assert isinstance(outcome(pool, "GET"), list)
        assert asked(server) == 1
        assert counters(server)["replays_refused"] == {"peer_had_it": 1}


@pytest.mark.parametrize("version", [None, "TLSv1.3"])
@pytest.mark.parametrize("how", ["SHUT_RDWR", "SHUT_WR", "SHUT_RD"])
def test_a_request_that_another_thread_aborts_is_asked_once(version, how, request):
    """The peer answers our FIN with its own, or with an RST, at once."""
    for method in ("GET", "PUT") * (25 if request.config.getoption("--full") else 2):
        with reused(Silence(), tls=version) as (server, pool):
            sock = pooled_connection(pool).sock

            def abort(server: Any = server, sock: Any = sock) -> None:
                server.journal.wait(lambda journal: len(journal.processed(path="/wanted")) == 1)
                socket.socket.shutdown(sock, getattr(socket, how))

            ask = functools.partial(outcome, pool, method, body=b"put" if method == "PUT" else None)
            seen, _ = replay_tools.side_by_side([ask, abort])
            assert isinstance(seen, list) and asked(server) == 1, (method, seen, asked(server))


def test_a_bound_connections_requests_are_not_sent_on_another() -> None:
    """NTLM's identity is the connection's: a request on a fresh one would be nobody's.

    Whatever gives a reason to move: the announced limit, a setting, the clock.
    """
    handshake = [
        Respond(401, headers={"WWW-Authenticate": "NTLM"}),
        Respond(401, headers={"WWW-Authenticate": "NTLM TlRMTVNTUAAC"}),
        Respond(200, headers={"Keep-Alive": "timeout=1"}),
    ]
    with reused(*handshake, Respond(), Respond(), ProcessThenReset()) as (server, pool):
        assert pool.request("POST", "/login").status == 401
        for token, status in (("AAAB", 401), ("AAAD", 200)):
            headers = {"Authorization": "NTLM " + token}
            assert pool.request("POST", "/login", headers=headers).status == status
        # after the handshake, which takes longer than these on a busy machine
        stalepool.install(nonidempotent_max_idle_s=0.1, max_idle_s=0.2)
        wait_idle(pool, 0.8)
        for method in ("POST", "GET"):
            assert outcome(pool, method) == 200
        assert isinstance(outcome(pool, "GET"), list)
        assert asked(server) == 3
        assert len(server.journal.connections) == 1


CONTENT = b"0123456789"


class Body(NamedTuple):
    """``make``: a new one for each request; gets a directory of its own. ``arrives``: what the
    server has to get. ``refused_by``: the rules that refuse a replay, None where there is one.
    """

    make: Callable[[Any], Any]
    arrives: bytes
    refused_by: Optional[str] = None
    headers: Dict[str, str] = {}
    options: Dict[str, Any] = {}


def a_file(directory: Any) -> Any:
    path = directory / "body"
    path.write_bytes(CONTENT)
    file = path.open("rb")
    file.seek(4)
    return file


def once(directory: Any) -> Iterator[bytes]:
    yield CONTENT[:5]
    yield CONTENT[5:]


def as_it_is_sent(text: str) -> bytes:
    """A text file's content as this urllib3 encodes it; 1.26 leaves that to http.client."""
    to_chunks = getattr(urllib3.util.request, "body_to_chunks", None)
    if to_chunks is None:
        return text.encode("latin-1")
    return b"".join(to_chunks(io.StringIO(text), "PUT", 16384).chunks)


UMLAUTS = "\u00fc" * 1000
LENGTH = {"Content-Length": "10"}
FROM_4 = {"Content-Length": "6"}
#: with its head more than the megabyte that is recorded
TOO_LARGE = CONTENT * 105_000
#: by the one or the other: whether the connection ends while chunks are sent is chance
CHUNKED = "body or dialogue"

NUMBERS = array.array("I", range(1000))

BODIES: Dict[str, Body] = {
    "none": Body(lambda _: None, b""),
    "empty": Body(lambda _: b"", b""),
    "bytes": Body(lambda _: CONTENT, CONTENT),
    "text": Body(lambda _: "0123456789", CONTENT),
    "bytearray": Body(lambda _: bytearray(CONTENT), CONTENT),
    "memoryview": Body(lambda _: memoryview(CONTENT), CONTENT, headers=LENGTH),
    "a megabyte": Body(lambda _: CONTENT * 100_000, CONTENT * 100_000),
    "more than a megabyte": Body(lambda _: TOO_LARGE, TOO_LARGE, "body"),
    "file, from 4": Body(a_file, CONTENT[4:], headers=FROM_4),
    "generator": Body(once, CONTENT, headers=LENGTH),
    "file without a length": Body(a_file, CONTENT[4:], CHUNKED),
    "array": Body(lambda _: NUMBERS, NUMBERS.tobytes(), CHUNKED),
    "view of an array": Body(lambda _: memoryview(NUMBERS), NUMBERS.tobytes()),
    "text file": Body(lambda _: io.StringIO(UMLAUTS), as_it_is_sent(UMLAUTS), CHUNKED),
    "list": Body(lambda _: [b"a", b"b"], b"ab", CHUNKED),
    "chunked": Body(lambda _: CONTENT, CONTENT, CHUNKED, options={"chunked": True}),
    "Expect": Body(lambda _: CONTENT, CONTENT, "dialogue", {"Expect": "100-continue"}),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(name, tmp_path):
    """Each arrives on a connection that lives; on one that ends it is sent again, if it may be."""
    body = BODIES[name]
    with shim(replay="idempotent"), reused(ECHO, Close()) as (server, pool):

        def put() -> Outcome:
            made = body.make(tmp_path)
            with contextlib.closing(made) if hasattr(made, "close") else contextlib.nullcontext():
                return send(server, pool, "PUT", body=made, headers=body.headers, **body.options)

        assert put() == (200, True, None, 1, 1)
        assert server.journal[-1].body == body.arrives
        outcome = put()
        assert [entry.connection for entry in server.journal][:3] == [0, 0, 0]
        if body.refused_by is None:
            assert outcome == (200, True, None, 2, 1)
            assert server.journal[-1].body == body.arrives
            assert counters(server)["replays"] == {"ok": 1}
        else:
            assert kind_of(outcome.error) == "connection"
            assert outcome.arrivals == 1
            ((refusal, count),) = counters(server)["replays_refused"].items()
            assert refusal in body.refused_by.split(" or ")
            assert count == 1
