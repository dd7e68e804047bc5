"""The first byte of an answer is awaited: what becomes of the request, and what is learnt."""

from __future__ import annotations

import gc
import http.client
import io
import socket
import struct
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
import urllib3

import stalepool
import stalepool_testing as testing
from delayed_answers import AnswerLater
from pools import counters, get, let_pass, pooled_connection, serving, shim, stock
from replay_tools import ECHO, NO_ANSWER, outcome, reused, send, side_by_side
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


TEN = b"x" * 10
LENGTH = {"Content-Length": "10"}


def body(meanwhile: Any, **settings: Any) -> Iterator[bytes]:
    """A body that is asked for when the head is out."""
    meanwhile(**settings)
    yield TEN


def test_a_record_from_before_an_uninstall_is_not_sent() -> None:
    """It would be answered, and the answer given to another request."""
    with shim(replay="idempotent"), reused(ECHO, Close()) as (server, pool):
        first = body(stalepool.uninstall)
        assert pool.request("PUT", "/a", body=first, headers=LENGTH).status == 200
        second = body(stalepool.install, replay="idempotent")
        with pytest.raises(urllib3.exceptions.ProtocolError):
            pool.request("PUT", "/b", body=second, headers=LENGTH)
        assert [entry.path for entry in server.journal].count("/a") == 1


@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_another_thread_ends_a_replay(how: str) -> None:
    """Stock: the error comes at once. A watchdog has the socket that is waited at, not the dead.

    After a close the answer to the replay does as well.
    """
    later = AnswerLater(threading.Event())
    with shim(replay="idempotent"), reused(Close(), later) as (_server, pool):
        conn = pooled_connection(pool)
        dead = conn.sock

        def end() -> None:
            assert later.came.wait(20)
            if how == "close":
                conn.close()
                later.told.set()
                return
            testing.kernel.wait_until(lambda: conn.sock is not dead, "a fresh socket")
            conn.sock.shutdown(socket.SHUT_RDWR)

        _, seen = side_by_side([end, lambda: outcome(pool, "GET", timeout=None)])
        later.told.set()
        assert seen == NO_ANSWER or (how == "close" and seen == 200)


def test_an_announced_limit_that_is_outlived_moves_three_posts() -> None:
    """At any pause within its margin each POST would take a fresh connection, for good."""
    limited = Respond(headers={"Keep-Alive": "timeout=1"})
    settings = {"nonidempotent_max_idle_s": "auto"}
    with shim(**settings), serving(family=socket.AF_UNIX, default=limited) as (server, pool):
        for _ in range(6):
            assert pool.request("POST", "/").status == 200
            let_pass(pool, 1.1)
        assert len({entry.connection for entry in server.journal}) == 4
