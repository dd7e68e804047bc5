"""Requests that must not be replayed: that does harm, or the server itself failed on them."""

from __future__ import annotations

import functools
import socket
from typing import Any, Dict, NamedTuple

import pytest

import stalepool
import stalepool_testing as testing
from pools import counters, pooled_connection, wait_idle
from replay_tools import NO_ANSWER, Late, asked, outcome, reused, side_by_side
from stalepool_testing import Close, ProcessThenClose, ProcessThenReset, Reset, Respond, Silence

pytestmark = pytest.mark.usefixtures("defaults")


class Case(NamedTuple):
    """``refused_by``: the rule that refuses a replay, as it is counted; "": there is one."""

    method: str
    headers: Dict[str, str] = {}
    refused_by: str = ""


#: of each rule a row; test_request_rules has all there is to a head, test_replay_bodies the bodies
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
            seen, _ = side_by_side([ask, abort])
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
