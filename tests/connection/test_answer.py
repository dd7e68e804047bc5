"""The first byte of an answer is awaited; a deadline of the caller's ends that when it comes."""

from __future__ import annotations

import gc
import http.client
import io
import socket
import struct
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
import urllib3

import lanes
import replay_tools
import stalepool
import stalepool_testing as testing
from breaks import breaks
from delayed_answers import AnswerLater
from errors import links
from pools import DEFAULTS, counters, get, let_pass, pooled_connection, serving, shim, stock
from replay_tools import ECHO, NO_ANSWER, after_checkout, asked, have, outcome, reused, send
from stalepool_testing import TLS, AnswerStep, Close, Exchange, FaultServer, Respond, Silence
from stalepool_testing.tls_sockets import say_goodbye
from worlds import WITH_TESTS

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

        _, seen = replay_tools.side_by_side([end, lambda: outcome(pool, "GET", timeout=None)])
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
            after_checkout(pool, have(server, testing.CloseAfter(0), testing.kernel.POLLRDHUP))
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
