"""Requests that are not sent a second time, and those beside them that are.

A replay may not harm the server, and must not repeat what the server itself failed on. Every case
is a request on a connection that has answered before; "once" is what the server's journal says.
"""

from __future__ import annotations

import io
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest

import stalepool
from reused import asked, outcome, primed, stock
from stalepool_testing import (
    TLS,
    AnswerStep,
    Exchange,
    ProcessThenClose,
    ProcessThenReset,
    Respond,
    Silence,
    kernel,
)

pytestmark = pytest.mark.usefixtures("defaults")


def lost(method: str, step: Any = None, **options: Any) -> Tuple[Any, int]:
    """Send a request whose answer is lost; returns its outcome, and how often it was asked."""
    with primed(step or ProcessThenClose()) as (server, pool):
        seen = outcome(pool, method, **options)
        return seen, asked(server)


# -- by what the request is ------------------------------------------------------------------------


class Case(NamedTuple):
    """A request whose answer is lost on a connection that has answered before."""

    method: str
    headers: Dict[str, str] = {}
    make_body: Callable[[], Any] = lambda: None
    options: Dict[str, Any] = {}


def _put() -> Any:
    return b"put"


def _key(name: str) -> Dict[str, str]:
    return {name: "3f5c"}


def _file() -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # _send() closes it
    file.write(b"x" * 100_000)
    file.seek(0)
    return file


ONCE = {
    "POST": Case("POST", {}, _put),
    "PATCH": Case("PATCH", {}, _put),
    "a method nobody knows": Case("APPEND", {}, _put),
    "LOCK": Case("LOCK", {}, _put),
    "MOVE": Case("MOVE", {"Destination": "/b"}),
    "a part of an upload": Case("PUT", {"Content-Range": "bytes 0-2/9"}, _put),
    "a part, its name in capitals": Case("PUT", {"CONTENT-RANGE": "bytes 0-2/9"}, _put),
    "PUT, If-Match": Case("PUT", {"If-Match": '"a"'}, _put),
    "PUT, If-None-Match": Case("PUT", {"If-None-Match": "*"}, _put),
    "DELETE, If-Unmodified-Since": Case("DELETE", {"If-Unmodified-Since": "yesterday"}),
    "PUT, WebDAV's If": Case("PUT", {"If": "(<urn:uuid:1>)"}, _put),
    "OAuth 1": Case("GET", {"Authorization": 'OAuth oauth_nonce="7"'}),
    "OAuth 1, in lower case": Case("GET", {"authorization": 'oauth oauth_nonce="7"'}),
    "DPoP": Case("GET", {"Authorization": "DPoP eyJ0"}),
    "OAuth 1 to a proxy": Case("GET", {"Proxy-Authorization": 'OAuth oauth_nonce="7"'}),
    "NTLM": Case("GET", {"Authorization": "NTLM TlRMTVNTUAAB"}),
    "Negotiate": Case("GET", {"Authorization": "Negotiate YIIC"}),
    "Kerberos": Case("GET", {"Authorization": "Kerberos YIIC"}),
    "Expect": Case("PUT", {"Expect": "200-ok"}, _put),
    "Upgrade": Case("GET", {"Upgrade": "tcp", "Connection": "Upgrade"}),
    "chunks": Case("PUT", {}, _put, {"chunked": True}),
    "an iterator": Case("PUT", {}, lambda: iter([b"p", b"ut"])),
    "more than is recorded": Case("PUT", {}, lambda: bytes((1 << 20) + 1)),
    "a file beyond that": Case("PUT", {}, lambda: io.BytesIO(bytes((1 << 20) + 1))),
}

TWICE = {
    **{method: Case(method) for method in ("GET", "HEAD", "OPTIONS", "TRACE", "DELETE")},
    **{
        method: Case(method, {"Depth": "0"}, lambda: b"<x/>")
        for method in ("PROPFIND", "REPORT", "SEARCH", "QUERY")
    },
    "a method in lower case": Case("get"),
    "GET, If-None-Match": Case("GET", {"If-None-Match": '"a"'}),
    "GET, If-Modified-Since": Case("GET", {"If-Modified-Since": "yesterday"}),
    "GET, If-Match": Case("GET", {"If-Match": '"a"'}),
    "GET, Range": Case("GET", {"Range": "bytes=0-2", "If-Range": '"a"'}),
    "GET, Bearer": Case("GET", {"Authorization": "Bearer OAuth"}),
    "GET, Basic": Case("GET", {"Authorization": "Basic bnRsbTo="}),
    "GET, a word of the tables in a value": Case("GET", {"X-Note": "Expect: Upgrade: OAuth"}),
    "PUT": Case("PUT", {}, _put),
    "PUT, str": Case("PUT", {}, lambda: "put \u00fc"),
    "PUT, bytearray": Case("PUT", {}, lambda: bytearray(b"put")),
    "PUT, memoryview": Case("PUT", {}, lambda: memoryview(b"put")),
    "PUT, a file with a length": Case("PUT", {"Content-Length": "100000"}, _file),
    "PUT, a file": Case("PUT", {"Content-Length": "3"}, lambda: io.BytesIO(b"put")),
    "PUT, a generator with a length": Case(
        "PUT", {"Content-Length": "3"}, lambda: (part for part in (b"p", b"ut"))
    ),
    "PUT, no body": Case("PUT"),
    "POST, Idempotency-Key": Case("POST", _key("Idempotency-Key"), _put),
    "POST, X-Idempotency-Key": Case("POST", _key("X-Idempotency-Key"), _put),
    "PATCH, idempotency-key": Case("PATCH", _key("idempotency-key"), _put),
}


def _send(case: Case) -> Tuple[Any, int]:
    body = case.make_body()
    try:
        return lost(case.method, headers=case.headers, body=body, **case.options)
    finally:
        if hasattr(body, "close"):
            body.close()


def _send_all(cases: Dict[str, Case]) -> Dict[str, Tuple[Any, int]]:
    return {name: _send(case) for name, case in cases.items()}


@pytest.fixture(scope="module")
def without() -> Dict[str, Tuple[Any, int]]:
    """What comes of all cases without the shim."""
    with stock():
        return _send_all({**ONCE, **TWICE})


@pytest.mark.parametrize("name", ONCE)
def test_an_answer_that_is_lost_is_the_callers_error(name: str, without: Dict[str, Any]) -> None:
    assert _send(ONCE[name]) == without[name]
    assert isinstance(without[name][0], list) and without[name][1] == 1


@pytest.mark.parametrize("name", TWICE)
def test_a_request_that_may_be_repeated_is_answered(name: str, without: Dict[str, Any]) -> None:
    assert isinstance(without[name][0], list) and without[name][1] == 1
    assert _send(TWICE[name]) == (200, 2)


def test_the_body_that_is_sent_again_is_the_one_that_was_sent() -> None:
    bodies = {
        "bytearray": bytearray(b"one"),
        "view": memoryview(b"one"),
        "file": io.BytesIO(b"one"),
    }
    for name, body in bodies.items():
        with primed(ProcessThenClose()) as (server, pool):
            status = outcome(pool, "PUT", body=body, headers={"Content-Length": "3"})
            sent = [entry.body for entry in server.journal if entry.path == "/wanted"]
            assert (name, status, sent) == (name, 200, [b"one", b"one"])


# -- by how the connection ended -------------------------------------------------------------------


@dataclass(frozen=True)
class FailLate(AnswerStep):
    """Reads the request, works on it for a while, and dies of it."""

    seconds: float
    reset: bool = False
    keeps_connection = False

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        exchange.channel.pause(self.seconds)
        exchange.end(self.reset)


@dataclass(frozen=True)
class RefuseEarly(AnswerStep):
    """Answers 413 once it has seen the head, and closes with the body unread: an RST."""

    keeps_connection = False

    def answer(self, exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        exchange.channel.flush()
        exchange.channel.reset()


def test_a_server_that_fails_on_a_request_is_not_asked_again() -> None:
    """A gateway that gives up after 3 s (FIN), a worker that the request kills (RST)."""
    tls = TLS()

    def fail(method: str, reset: bool, layer: Optional[TLS]) -> Tuple[Any, int]:
        with primed(FailLate(3, reset), FailLate(0), tls=layer) as (server, pool):
            seen = outcome(pool, method, body=b"put" if method == "PUT" else None)
            return seen, asked(server)

    cells = [
        (m, r, t) for m in ("GET", "PUT", "DELETE") for r in (False, True) for t in (None, tls)
    ]
    with ThreadPoolExecutor(len(cells)) as executor:
        seen = list(executor.map(lambda cell: fail(*cell), cells))
    for cell, (result, times) in zip(cells, seen):
        assert isinstance(result, list) and times == 1, (cell, result, times)


@pytest.mark.parametrize("layer", ["plain", "TLSv1.3"])
def test_a_connection_that_died_at_once_is_the_other_side_of_that_rule(layer: str) -> None:
    stalepool.install(replay_within_s=0.5)
    tls = None if layer == "plain" else TLS(layer)
    for reset in (False, True):
        with primed(FailLate(0, reset), tls=tls) as (server, pool):
            assert outcome(pool, "GET") == 200
            assert asked(server) == 2
        with primed(FailLate(1, reset), tls=tls) as (server, pool):
            assert isinstance(outcome(pool, "GET"), list)
            assert asked(server) == 1


@pytest.mark.parametrize("layer", ["plain", "TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_an_upload_that_is_refused_early_is_begun_once(layer: str, kind: str) -> None:
    """A 413 lies unread behind the RST that ends the connection."""
    tls = None if layer == "plain" else TLS(layer)
    small = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)]

    def upload() -> Tuple[Any, int]:
        body: Any = b"x" * 900_000
        options = {"tls": tls, "socket_options": small, "receive_buffer": 16384}
        with primed(RefuseEarly(), **options) as (server, pool):
            seen = outcome(pool, "PUT", body=body if kind == "bytes" else io.BytesIO(body))
            return seen, asked(server)

    with stock():
        expected = upload()
    assert upload() == expected
    assert expected[1] == 1


@pytest.mark.parametrize("layer", ["plain", "TLSv1.3"])
@pytest.mark.parametrize("how", ["SHUT_RDWR", "SHUT_WR", "SHUT_RD"])
def test_a_request_that_another_thread_aborts_is_asked_once(layer: str, how: str) -> None:
    """The peer answers our FIN with its own, or with an RST, at once."""
    tls = None if layer == "plain" else TLS(layer)
    for method in ("GET", "PUT") * 25:
        with primed(Silence(), tls=tls) as (server, pool):
            sock = next(conn.sock for conn in reversed(pool.pool.queue) if conn is not None)

            def abort(server: Any = server, sock: Any = sock) -> None:
                server.journal.wait(lambda journal: len(journal.processed(path="/wanted")) == 1)
                socket.socket.shutdown(sock, getattr(socket, how))

            thread = threading.Thread(target=abort)
            thread.start()
            seen = outcome(pool, method, body=b"put" if method == "PUT" else None)
            thread.join()
            assert isinstance(seen, list) and asked(server) == 1, (method, seen, asked(server))


# -- by whom the connection speaks for -------------------------------------------------------------

_CHALLENGE = {"NTLM": "NTLM TlRMTVNTUAAC", "Negotiate": "Negotiate oYIB"}


def _handshake(scheme: str) -> List[Any]:
    """The server's part: it offers the scheme, challenges, and accepts."""
    return [
        Respond(401, headers={"WWW-Authenticate": scheme}),
        Respond(401, headers={"WWW-Authenticate": _CHALLENGE[scheme]}),
        Respond(200, headers={"Keep-Alive": "timeout=1"}),
    ]


def _log_in(pool: Any, scheme: str) -> None:
    assert pool.request("POST", "/login").status == 401
    for token, status in (("AAAB", 401), ("AAAD", 200)):
        headers = {"Authorization": "%s %s" % (scheme, token)}
        assert pool.request("POST", "/login", headers=headers).status == status


@pytest.mark.parametrize("scheme", _CHALLENGE)
def test_a_bound_connections_requests_are_not_sent_on_another(scheme: str) -> None:
    """The identity is the connection's: a request on a fresh one would be nobody's."""
    with primed(*_handshake(scheme), ProcessThenReset()) as (server, pool):
        _log_in(pool, scheme)
        assert isinstance(outcome(pool, "GET"), list)
        assert asked(server) == 1
        assert len(server.journal.connections) == 1


@pytest.mark.parametrize("scheme", _CHALLENGE)
def test_a_bound_connection_is_never_moved_off(scheme: str) -> None:
    """Whatever gives a reason to move: the announced limit, a setting, the clock."""
    with primed(*_handshake(scheme)) as (server, pool):
        _log_in(pool, scheme)  # which takes longer than these limits, on a busy machine
        stalepool.install(nonidempotent_max_idle_s=0.1, max_idle_s=0.2)
        kernel.wait_until(_after(1.2), "idle time", 5)
        for method in ("POST", "GET"):
            assert outcome(pool, method) == 200
        assert len(server.journal.connections) == 1


def _after(seconds: float) -> Callable[[], bool]:
    """Tells whether so many seconds have passed since it was made."""
    from time import monotonic

    began = monotonic()
    return lambda: monotonic() - began >= seconds
