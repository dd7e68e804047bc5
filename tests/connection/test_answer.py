"""The first byte of an answer is awaited: what becomes of the request, and what is learnt."""

from __future__ import annotations

import gc
import http.client
import io
import socket
import struct
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3

import stalepool
from pools import counters, get, serving, shim, stock
from replay_tools import ECHO, reused, send
from stalepool_testing import TLS, AnswerStep, Close, Exchange, FaultServer, Respond, Silence
from stalepool_testing.tls_sockets import say_goodbye

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class SayGoodbye(AnswerStep):
    """Ends TLS as the request arrives, and leaves TCP as it is. Not processed."""

    def answer(self, exchange: Exchange) -> None:
        exchange.channel.throw_away()
        say_goodbye(exchange.channel.sock)
        exchange.channel.park()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_close_notify_without_a_fin(version: str) -> None:
    """The kernel knows of no end."""
    with shim(replay="idempotent"), reused(SayGoodbye(), tls=TLS(version)) as (server, pool):
        assert send(server, pool, "GET")[:4] == (200, True, None, 2)


def test_an_answer_to_a_request_from_before_an_uninstall() -> None:
    """The class is kept on the instance, as botocore does."""
    with shim(), FaultServer() as server:
        conn = urllib3.connection.HTTPConnection(server.host, server.port, timeout=20.0)
        conn.response_class = conn.response_class
        for _ in range(2):
            conn.request("GET", "/")
            stalepool.uninstall()
            response = conn.getresponse()
            assert (response.status, response.read()) == (200, b"")
        assert stalepool.snapshot()["fallbacks"] == {}
        conn.close()


def test_an_answer_on_what_no_connection_has() -> None:
    """A socket that nobody knows; and what tests of HTTP clients have in its place."""
    one, other = socket.socketpair()
    with shim(), one, other:
        other.sendall(ANSWER)
        for sock in (one, SimpleNamespace(makefile=lambda mode: io.BytesIO(ANSWER))):
            response = urllib3.connection.HTTPConnection("127.0.0.1", 1).response_class(sock)
            response.begin()
            assert response.read() == b"ok"
            response.close()
        assert stalepool.snapshot()["fallbacks"] == {}


def test_an_answer_whose_connection_is_gone() -> None:
    with shim(replay="idempotent"), reused(Close()) as (server, pool):
        conn = pool._get_conn()
        conn.request("GET", "/wanted")
        sock, conn.sock = conn.sock, None
        response = conn.response_class(sock, method="GET")
        del conn
        gc.collect()
        with sock, pytest.raises(http.client.RemoteDisconnected):
            response.begin()
        response.close()
        assert server.journal.count(path="/wanted") == 1


@pytest.mark.parametrize(
    ("status", "header", "challenge", "is_bound"),
    [
        (401, "WWW-Authenticate", "Negotiate", True),
        (407, "Proxy-Authenticate", "Negotiate", True),
        (401, "WWW-Authenticate", 'Basic realm="x"', False),
    ],
)
def test_a_challenge_may_bind_the_connection(status, header, challenge, is_bound):
    """An identity is going to be spoken on it: another connection would not be who this one is."""
    script = [Respond(status, headers={header: challenge}), Close()]
    with shim(replay="idempotent"), serving(script, default=ECHO) as (server, pool):
        assert pool.request("GET", "/").status == status
        assert send(server, pool, "GET").status == (None if is_bound else 200)
        assert counters(server)["replays_refused"] == ({"identity": 1} if is_bound else {})


@pytest.mark.parametrize("silence_s", ["off", 1])
def test_a_receive_timeout_of_the_kernels_ends_the_request(silence_s: Any) -> None:
    """Stock: the read seems to have found the end. Nothing has ended, so nothing is replayed."""
    timeval = struct.pack("ll", 0, 300_000)
    options = [(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)]
    ends = []
    for who in (stock(), shim(replay="idempotent", silence_s=silence_s)):
        with who, reused(Silence(), timeout=None, socket_options=options) as (server, pool):
            with pytest.raises(urllib3.exceptions.ProtocolError) as caught:
                get(pool)
            ends.append((str(caught.value), len(server.journal)))
    assert ends[0] == ends[1]
