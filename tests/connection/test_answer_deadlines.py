"""A deadline of the caller's ends a request when it comes, whatever we wait for then."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import urllib3

import lanes
from breaks import breaks
from delayed_answers import AnswerLater
from errors import links
from pools import DEFAULTS, counters, pooled_connection, shim
from replay_tools import after_checkout, asked, have, reused
from stalepool_testing import Close, CloseAfter, Silence
from stalepool_testing.kernel import POLLRDHUP
from worlds import WITH_TESTS


class Deadline(Exception):
    """A class of the application's own."""


@pytest.mark.each_value
@pytest.mark.parametrize(
    "kind",
    # the first is what a read timeout raises, too
    [TimeoutError, ValueError, Deadline, KeyboardInterrupt],
)
@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("steps", [[Silence()], [Close(), Silence()]], ids=["wait", "replay"])
def test_an_alarm_ends_the_wait(alarm: Any, kind: Any, timeout: Any, steps: Any) -> None:
    """Stock: it ends the wait for the first answer; a replay's is one more wait to be ended.

    Also while the caller handles another connection's end, which Python makes its context.
    """
    error = kind("two seconds")
    with shim(replay="idempotent"), reused(*steps) as (server, pool):
        began, sock = time.monotonic(), pooled_connection(pool).sock
        with pytest.raises(BaseException, match=r"two seconds|Read timed out") as raised:
            try:
                raise ConnectionResetError(104, "of another connection")
            except ConnectionResetError:
                alarm(error)
                pool.request("GET", "/wanted", timeout=timeout)
        assert time.monotonic() - began < 5
        assert asked(server) <= len(steps)
        assert counters(server)["replays_refused"] == {}
        assert sock.gettimeout() == timeout
    is_its_cause = error in (raised.value.__cause__, raised.value.__context__)
    assert raised.value is error or (is_its_cause and kind in (TimeoutError, ValueError))
    assert any(isinstance(link, ConnectionResetError) for link in links(raised.value))


def test_an_alarm_as_the_first_wait_ends(alarm: Any) -> None:
    """Both take a round number of seconds, and the handler has a socket's words."""
    error = TimeoutError("the job timed out")
    with shim(replay="idempotent", silence_s=1), reused(Silence()) as (_, pool):
        began = time.monotonic()
        alarm(error, seconds=1.0)
        # Python 3.8's socket raises no TimeoutError, so urllib3 takes it for another failure
        with pytest.raises(urllib3.exceptions.HTTPError, match="timed out"):
            pool.request("GET", "/wanted", timeout=30.0)
        assert time.monotonic() - began < 5


GREEN = """
    import importlib, json, sys
    from worlds import enter
    enter(sys.argv[1])

    from greenlet import GreenletExit
    from pools import counters, shim
    from replay_tools import links, reused
    from stalepool_testing import Close, Silence

    green = importlib.import_module(sys.argv[1])
"""

KILLED = """
    class Own(Exception):
        pass

    def ask(pool, came):
        try:
            pool.request("GET", "/")
        except BaseException as error:
            came += links(error)

    for error in (green.Timeout(), GreenletExit(), Own(), TimeoutError("mine")):
        for steps in ([Silence()], [Close(), Silence()]):  # in the first try, and in the second
            with shim(replay="idempotent"), reused(*steps) as (server, pool):
                came = []
                thread = green.spawn(ask, pool, came)
                server.wait_request(1 + len(steps))
                thread.kill(error)
                (thread.wait if sys.argv[1] == "eventlet" else thread.join)()
                assert error is came[0] or (type(error) is TimeoutError and error in came), came
                assert server.journal.count(path="/") == len(steps)
                counted = counters(server)
                assert (counted["replays"], counted["replays_refused"]) == ({}, {})
    print(json.dumps("done"))
"""


@pytest.mark.parametrize("hub", lanes.HUBS)
@pytest.mark.parametrize("world", lanes.first(1, ["eventlet", "gevent"]))
def test_what_ends_a_green_caller_goes_through(run_python: Any, world: str, hub: Any) -> None:
    """A library's own timeout, a kill, and an ``Exception`` that a timer was given."""
    flags = ["-Wignore:unclosed event loop:ResourceWarning"]  # eventlet's own, before 0.40
    assert run_python(GREEN + KILLED, world, env={**WITH_TESTS, **hub}, flags=flags) == "done"


WHILE_IT_CONNECTS = """
    with shim(replay="idempotent"), reused(Close()) as (server, pool):
        server.answer_no_connect()
        try:
            with green.Timeout(0.5, ValueError("mine")):
                pool.request("GET", "/")
        except ValueError as error:
            print(json.dumps(str(error)))
"""


@pytest.mark.parametrize("world", ["eventlet", "gevent"])
def test_a_timer_ends_the_opening_of_a_fresh_socket(run_python: Any, world: str) -> None:
    """Its exception may be a builtin one. urllib3 leaves the new socket to the collector then."""
    flags = ["-Wignore::ResourceWarning"]
    assert run_python(GREEN + WHILE_IT_CONNECTS, world, env=WITH_TESTS, flags=flags) == "mine"


@pytest.mark.parametrize("what", ["replay", "move"])
def test_without_a_connect_timeout_a_fresh_socket_is_not_waited_for(what: str) -> None:
    """Stock: the error comes at once. By the time of the fresh one the origin swallows SYNs."""
    with shim(**DEFAULTS), reused(*[Close()] * (what == "replay")) as (server, pool):
        server.answer_no_connect()
        pool.timeout = urllib3.Timeout()
        pooled_connection(pool).timeout = None
        if what == "move":
            after_checkout(pool, have(server, CloseAfter(0), POLLRDHUP))
        began = time.monotonic()
        with breaks("limit of a %s's connect" % what, by=0.5):
            with pytest.raises(urllib3.exceptions.ProtocolError):
                pool.request("GET" if what == "replay" else "POST", "/", timeout=None)
        assert time.monotonic() - began < 20


def test_a_deadline_ends_the_opening_of_a_fresh_socket(alarm: Any) -> None:
    """Stock: it ends the wait for the answer. urllib3 makes a ConnectTimeoutError of it here."""
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        server.answer_no_connect()
        alarm(TimeoutError("the caller's deadline"), 0.05)
        with pytest.raises(urllib3.exceptions.HTTPError) as raised:
            pool.request("POST", "/", timeout=10)
        assert "the caller's deadline" in " ".join(map(str, links(raised.value)))


@pytest.mark.parametrize("silence_s", [15, 1], ids=["first wait", "watched"])
def test_another_thread_closes_the_connection(silence_s: int) -> None:
    """Stock: the file object holds the socket, and the answer is read."""
    told = threading.Event()
    with shim(replay="idempotent", silence_s=silence_s):
        with reused(AnswerLater(told)) as (_server, pool):
            conn = pooled_connection(pool)
            threading.Timer(0.3, conn.close).start()
            threading.Timer(0.4 if silence_s == 15 else 1.3, told.set).start()
            assert pool.request("GET", "/").data == b"ok"
