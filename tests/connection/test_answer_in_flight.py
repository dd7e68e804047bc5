"""Meanwhile: an uninstall, a close, a shutdown or a signal while a request is in flight.

The caller gets what stock gives, or better; never what belongs to another request.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Iterator

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import stalepool
from delayed_answers import AnswerLater
from pools import pooled_connection, serving, shim
from replay_tools import ECHO, NO_ANSWER, outcome, reused
from stalepool_testing import Close, Respond

BODY = b"x" * 10
LENGTH = {"Content-Length": "10"}


def body(meanwhile: Any, **settings: Any) -> Iterator[bytes]:
    """A body that is asked for when the head is out."""
    meanwhile(**settings)
    yield BODY


def test_a_record_from_before_an_uninstall_is_not_sent() -> None:
    """It would be answered, and the answer given to another request."""
    with shim(replay="idempotent"), reused(ECHO, Close()) as (server, pool):
        first = body(stalepool.uninstall)
        assert pool.request("PUT", "/a", body=first, headers=LENGTH).status == 200
        second = body(stalepool.install, replay="idempotent")
        with pytest.raises(urllib3.exceptions.ProtocolError):
            pool.request("PUT", "/b", body=second, headers=LENGTH)
        assert [entry.path for entry in server.journal].count("/a") == 1


def test_a_close_during_a_replay() -> None:
    """Stock: the first error. The replay's answer does as well."""
    came, told = threading.Event(), threading.Event()
    with shim(replay="idempotent"), reused(Close(), AnswerLater(told, came)) as (_server, pool):
        conn = pooled_connection(pool)

        def close() -> None:
            assert came.wait(20)
            conn.close()
            told.set()

        closer = threading.Thread(target=close)
        closer.start()
        assert outcome(pool, "GET") in (200, NO_ANSWER)
        closer.join()


def test_a_shutdown_ends_a_replay() -> None:
    """Stock: the error comes at once. A watchdog has the socket that is waited at, not the dead."""
    came, told = threading.Event(), threading.Event()
    with shim(replay="idempotent"), reused(Close(), AnswerLater(told, came)) as (_server, pool):
        conn = pooled_connection(pool)

        dead = conn.sock

        def abort() -> None:
            assert came.wait(20)
            give_up = time.monotonic() + 5
            while conn.sock is dead and time.monotonic() < give_up:
                time.sleep(0.001)
            conn.sock.shutdown(socket.SHUT_RDWR)

        watchdog = threading.Thread(target=abort)
        watchdog.start()
        assert outcome(pool, "GET", timeout=None) == NO_ANSWER
        watchdog.join()
        told.set()


class OneAtATime(HTTPConnection):
    """An application's class that refuses a second connection, by an exception of its own."""

    class TooMany(Exception):
        pass

    is_open = False

    def connect(self) -> None:
        if OneAtATime.is_open:
            raise self.TooMany
        super().connect()
        OneAtATime.is_open = True


def test_an_exception_of_a_connection_class_does_not_reach_a_post() -> None:
    OneAtATime.is_open = False
    with shim(nonidempotent_max_idle_s=0), reused(connection_class=OneAtATime) as (_, pool):
        assert pool.request("POST", "/").status == 200
        assert stalepool.snapshot()["totals"]["moved"] == {"failed": 1}


@pytest.mark.full
def test_an_announced_limit_that_is_outlived_moves_three_posts() -> None:
    """At any pause within its margin each POST would take a fresh connection, for good."""
    limited = Respond(headers={"Keep-Alive": "timeout=1"})
    with shim(nonidempotent_max_idle_s="auto"), serving(default=limited) as (server, pool):
        for _ in range(6):
            assert pool.request("POST", "/").status == 200
            time.sleep(1.1)
        assert len({entry.connection for entry in server.journal}) == 4
