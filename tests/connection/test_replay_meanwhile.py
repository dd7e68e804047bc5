"""What others do while a request is sent once more: closes, installs, another thread's answer."""

from __future__ import annotations

import http.client
import threading
from typing import Any

import pytest
import urllib3

import stalepool
from breaks import breaks
from delayed_answers import AnswerLater, nothing_is_acknowledged
from pools import counters, get, pooled_connection, serving, shim
from replay_tools import ECHO, acting, after_checkout, have, kind_of, prime, reused, send
from stalepool.connection.state import WAITING, find
from stalepool_testing import Close, ResetAfter, kernel

SETTINGS = {"replay": "idempotent", "silence_s": 1}


def install_anew() -> None:
    stalepool.uninstall()
    stalepool.install(**SETTINGS)


def test_installed_anew_before_the_end_came() -> None:
    """What is in flight then is forgotten: the error is the caller's."""

    def close(request: Any) -> Any:
        if request.path != "/wanted":
            return ECHO
        kernel.wait_until(lambda: find(sock).phase is WAITING, "a client that waits")
        install_anew()
        return Close()

    with shim(**SETTINGS), serving(close) as (server, pool):
        prime(pool)
        sock = pooled_connection(pool).sock
        outcome = send(server, pool, "GET")
        assert (kind_of(outcome.error), outcome.arrivals) == ("connection", 1)
        assert stalepool.snapshot()["fallbacks"] == {}


@pytest.mark.parametrize("when", ["before", "while"])
def test_closed_when_the_fresh_socket_is_opened(when: str) -> None:
    """Nothing is sent on it; stock: the same error."""
    # the next check is a fast one, which does not ask
    with shim(**SETTINGS), reused(Close(), times=2) as (server, pool):
        conn = pooled_connection(pool)
        if when == "before":
            with breaks("TCP_INFO", by=lambda layers: conn.close()):
                outcome = send(server, pool, "GET")
        else:
            acting(pool, lambda: conn.close())
            outcome = send(server, pool, "GET")
            server.wait_ended(1)
        assert kind_of(outcome.error) == "connection"
        assert server.journal.count(path="/wanted") == 1
        assert stalepool.snapshot()["fallbacks"] == {}


@pytest.mark.parametrize("meanwhile", ["answered", "installed anew", "closed"])
def test_while_a_socket_is_opened_beside_a_silent_one(meanwhile: str) -> None:
    """The old socket is read on, as in stock, and nothing is sent on the other."""
    later = AnswerLater(threading.Event())

    def act() -> None:
        if meanwhile == "installed anew":
            install_anew()
        elif meanwhile == "closed":
            conn.close()
        later.told.set()
        kernel.wait_until(lambda: kernel.unread_bytes(sock) > 0, "an answer")

    with shim(**SETTINGS), reused(later) as (server, pool), nothing_is_acknowledged():
        conn = pooled_connection(pool)
        sock = conn.sock
        acting(pool, act)
        assert get(pool) == 200
        server.wait_ended(1)
        assert [entry.connection for entry in server.journal] == [0, 0]
        assert stalepool.snapshot()["fallbacks"] == {}


def test_closed_while_a_silent_ones_answer_comes_on_another() -> None:
    """The old socket is read on, as in stock."""
    later = AnswerLater(threading.Event())

    def answer(request: Any) -> Any:
        if later.came.is_set():
            conn.close()
            later.told.set()
        elif request.path == "/wanted":
            return later
        return ECHO

    with shim(**SETTINGS), serving(answer) as (server, pool), nothing_is_acknowledged():
        prime(pool)
        conn = pooled_connection(pool)
        assert get(pool, "/wanted") == 200
        assert [entry.connection for entry in server.journal] == [0, 0, 1]
        assert counters(server)["replays"] == {"failed": 1}


def test_a_send_that_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's patch of http.client's: nothing is left that could be asked."""
    stock_send = http.client.HTTPConnection.send

    def send_and_close(self: Any, data: Any) -> None:
        if b"/wanted" in data:
            self.close()
            raise ConnectionResetError("by theirs")
        stock_send(self, data)

    with shim(**SETTINGS), reused() as (server, pool):
        monkeypatch.setattr(http.client.HTTPConnection, "send", send_and_close)
        outcome = send(server, pool, "GET")
        assert isinstance(outcome.error, urllib3.exceptions.ProtocolError)
        assert (kind_of(outcome.error), outcome.arrivals) == ("connection", 0)
        assert len(server.journal.connections) == 1


def test_a_send_that_fails_when_nobody_listens_any_more() -> None:
    """The error is the send's, and not that of the connect."""
    with shim(reconnect_window_s=0, **SETTINGS), reused() as (server, pool):
        server.stop_listening()
        after_checkout(pool, have(server, ResetAfter(), kernel.POLLRDHUP))
        outcome = send(server, pool, "GET")
        assert isinstance(outcome.error, urllib3.exceptions.ProtocolError)
        assert (kind_of(outcome.error), outcome.arrivals) == ("connection", 0)
        assert counters(server)["replays"] == {"failed": 1}
