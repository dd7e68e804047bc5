"""A deadline of the caller's ends a request when it comes, whatever we wait for then."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
import urllib3

from delayed_answers import AnswerLater
from pools import pooled_connection, shim
from reused import primed
from stalepool_testing import Close, FaultServer, Respond, Silence
from worlds import WITH_TESTS

#: what a job's deadline may raise; the first is what a read timeout raises, too
DEADLINES = [TimeoutError("two seconds"), ValueError("two seconds")]


class Deadline(Exception):
    """A class of the application's own."""


@pytest.mark.each_value
@pytest.mark.parametrize("error", [*DEADLINES, Deadline("two seconds")], ids=repr)
@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("steps", [[Silence()], [Close(), Silence()]], ids=["wait", "replay"])
def test_an_alarm_ends_the_wait(alarm: Any, error: Exception, timeout: Any, steps: Any) -> None:
    """Stock: it ends the wait for the first answer; a replay's is one more wait to be ended."""
    with shim(replay="idempotent"), FaultServer([Respond(200), *steps]) as server:
        with urllib3.HTTPConnectionPool(server.host, server.port, retries=False) as pool:
            assert pool.request("GET", "/", timeout=timeout).status == 200
            began = time.monotonic()
            alarm(error)
            with pytest.raises(Exception, match=r"two seconds|Read timed out") as raised:
                pool.request("GET", "/", timeout=timeout)
            assert time.monotonic() - began < 5
    is_itself = raised.value is error
    assert is_itself or error in (raised.value.__cause__, raised.value.__context__)


def test_an_alarm_in_the_wait_leaves_the_socket_its_own_timeout(alarm: Any) -> None:
    with shim(replay="idempotent"), primed(Silence()) as (_server, pool):
        sock = pooled_connection(pool).sock
        alarm(Deadline("two seconds"))
        with pytest.raises(Deadline):
            pool.request("GET", "/", timeout=60.0)
        assert sock.gettimeout() == 60.0


GREEN = """
    import json, sys, time
    from worlds import enter
    enter(sys.argv[1])
    import importlib, urllib3
    import stalepool

    class Deadline(Exception):
        pass

    make = importlib.import_module(sys.argv[1]).Timeout
    error = {"builtin": TimeoutError("mine"), "own": Deadline("mine")}[sys.argv[2]]
    pool = urllib3.HTTPConnectionPool(sys.argv[3], int(sys.argv[4]), retries=False)
    pool.request("GET", "/")
    began = time.monotonic()
    timer = make(0.5, error)
    if hasattr(timer, "start") and not timer.pending:
        timer.start()
    try:
        found = pool.request("GET", "/").status
    except Exception as raised:
        found = "mine" in repr([raised, raised.__cause__, raised.__context__])
    pool.close()
    print(json.dumps([found, time.monotonic() - began]))
"""


@pytest.mark.each_value
@pytest.mark.parametrize("error", ["builtin", "own"])
@pytest.mark.parametrize("steps", [[Silence()], [Close(), Silence()]], ids=["wait", "replay"])
@pytest.mark.parametrize("world", ["eventlet", "gevent"])
def test_a_timer_of_a_green_thread_ends_it(
    run_python: Any, world: str, steps: Any, error: str
) -> None:
    with FaultServer([Respond(200), *steps]) as server:
        found, took_s = run_python(
            GREEN, world, error, server.host, str(server.port), env=WITH_TESTS
        )
    assert found is True
    assert took_s < 5


def test_a_replay_without_a_connect_timeout_ends() -> None:
    """Stock: the error comes at once. Here the origin swallows SYNs by the time of the replay."""
    with shim(replay="idempotent"), primed(Close(), Close()) as (server, pool):
        del server
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):  # the queue is full: whoever comes now is not answered
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        conn = pooled_connection(pool)
        pool.timeout = urllib3.Timeout()
        conn.timeout = None
        conn.port = full.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(urllib3.exceptions.ProtocolError):
            pool.request("GET", "/", timeout=None)
        assert time.monotonic() - began < 20
        for each in (full, *fillers):
            each.close()


@pytest.mark.parametrize("silence_s", [15, 1], ids=["first wait", "watched"])
def test_another_thread_closes_the_connection(silence_s: int) -> None:
    """Stock: the file object holds the socket, and the answer is read."""
    told = threading.Event()
    with shim(replay="idempotent", silence_s=silence_s):
        with primed(AnswerLater(told)) as (_server, pool):
            conn = pooled_connection(pool)
            threading.Timer(0.3, conn.close).start()
            threading.Timer(0.4 if silence_s == 15 else 1.6, told.set).start()
            assert pool.request("GET", "/").data == b"ok"
