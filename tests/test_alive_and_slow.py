"""Peers that are alive and slow: no timeout of ours cuts them off."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass

import pytest
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from pools import counters, get, pool_for, shim, stock
from stalepool.testing import TLS, AnswerStep, FaultServer, Respond, ZeroWindow, release, swallow

LARGE = b"x" * 4_000_000
#: a user timeout that an application sets
A_SECOND = [
    *HTTPConnection.default_socket_options,
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000),
]
#: probes as soon and as often as can be
HASTY = {
    "replay": "idempotent",
    "user_timeout_s": 1,
    "keepalive_idle_s": 1,
    "keepalive_interval_s": 1,
    "keepalive_count": 1,
}


def upload(step, **options):
    """A large upload on a reused connection; the status, or the error's name."""
    with FaultServer([Respond(200), step]) as server, pool_for(server, **options) as pool:
        assert get(pool) == 200
        try:
            return pool.request("POST", "/", body=LARGE).status
        except HTTPError as error:
            return type(error).__name__


def ask(step, tls=None, **options):
    """A small request on a reused connection; the status, and how often it arrived."""
    with FaultServer([Respond(200), step], tls=tls) as server:
        with pool_for(server, tls, **options) as pool:
            assert get(pool) == 200
            status = pool.request("POST", "/", body=b"x").status
            return status, server.journal.count(method="POST"), counters(server).get("replays")


def side_by_side(*calls):
    found = [None] * len(calls)

    def run(number):
        found[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def outlive(seconds, **options):
    """A peer that does not read for so long, and peers that answer after so long."""
    tls = TLS()
    return side_by_side(
        lambda: upload(ZeroWindow(seconds), **options),
        lambda: ask(Respond(200, delay_s=seconds), **options),
        lambda: ask(Respond(200, delay_s=seconds), tls, **options),
    )


@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_alive_and_slow(who):
    with who() if who is stock else shim(**HASTY):
        uploaded, *asked = outlive(2)
    assert uploaded == 200
    assert asked == [(200, 1, None if who is stock else {})] * 2


@pytest.mark.slow
def test_alive_and_slow_for_a_minute():
    with shim(replay="idempotent"):
        uploaded, *asked = outlive(62, timeout=None)
    assert uploaded == 200
    assert asked == [(200, 1, {})] * 2


def test_what_a_user_timeout_does_to_an_upload():
    """Why it is not set for one: a peer that does not read looks dead to it."""
    with stock():
        ended = upload(ZeroWindow(2), socket_options=A_SECOND, timeout=10)
    assert ended in ("ReadTimeoutError", "ProtocolError")


# -- a small window --------------------------------------------------------------------------------


class Busy(ZeroWindow):
    """For a second, before it reads on."""

    def __init__(self):
        super().__init__(2.5)


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("requests_before", [0, 1])
def test_a_small_body_for_a_small_window(method, requests_before):
    """The peer's kernel has no room for it until its program reads: what is small depends on it."""
    script = [*[Respond(200)] * requests_before, Busy()]
    with shim(replay="idempotent", user_timeout_s=1):
        with FaultServer(script, receive_buffer=2048) as server, pool_for(server) as pool:
            for _ in range(requests_before):
                assert get(pool) == 200
            assert pool.request(method, "/", body=b"x" * 16_000).status == 200
            assert server.journal.count(method=method) == 1


def test_what_a_user_timeout_does_to_a_small_window():
    """Why it is asked for: without room for it a small request is no other than a large one."""
    with stock(), FaultServer([Busy()], receive_buffer=2048) as server:
        with pool_for(server, socket_options=A_SECOND) as pool:
            with pytest.raises(HTTPError):
                pool.request("POST", "/", body=b"x" * 16_000)


# -- a lost probe ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class WithLoss(AnswerStep):
    """Works on the request; meanwhile the path is away. In seconds since the request came."""

    away_at_s: float
    back_at_s: float
    answers_at_s: float

    def answer(self, exchange):
        exchange.process()
        exchange.channel.pause(self.away_at_s)
        swallow(exchange.channel.sock)
        exchange.channel.pause(self.back_at_s - self.away_at_s)
        release(exchange.channel.sock)
        exchange.channel.pause(self.answers_at_s - self.back_at_s)
        exchange.respond(200)


#: the default numbers, five times as fast
FIFTH = {"keepalive_idle_s": 1, "keepalive_interval_s": 1, "keepalive_count": 3}


def test_a_lost_probe():
    """One of those that fit into the user timeout: the next one is answered."""
    with shim(**FIFTH, user_timeout_s=3):
        assert ask(WithLoss(0.5, 1.5, 4.5)) == (200, 1, {})


def test_what_a_user_timeout_does_to_keepalive():
    """Why more than one has to fit: from then on the kernel does not count, it gives up."""
    with shim(**{**FIFTH, "keepalive_idle_s": 3}, user_timeout_s=3):
        with pytest.raises(HTTPError):
            ask(WithLoss(2.5, 3.5, 6))
