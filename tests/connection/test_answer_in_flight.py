"""Meanwhile: an uninstall, a close, a shutdown or a signal while a request is in flight.

The caller gets what stock gives, or better; never what belongs to another request.
"""

from __future__ import annotations

import socket
import threading
from typing import Any, Iterator

import pytest
import urllib3

import stalepool
from delayed_answers import AnswerLater
from pools import let_pass, pooled_connection, serving, shim
from replay_tools import ECHO, NO_ANSWER, outcome, reused, side_by_side
from stalepool_testing import Close, Respond, kernel

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
            kernel.wait_until(lambda: conn.sock is not dead, "a fresh socket")
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
