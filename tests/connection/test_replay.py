"""Replay: of which failed requests, within what time, and with which result."""

from __future__ import annotations

import contextlib
import functools
import gc
import http.client
import socket
import threading
import weakref
from typing import Any, ClassVar, Iterator, List

import pytest
import requests
import urllib3
from keystoneauth1.exceptions import ConnectFailure
from keystoneauth1.session import Session
from requests.adapters import HTTPAdapter
from urllib3.util import Retry, Timeout

import pools
import replay_tools
import stalepool
import stalepool_testing as testing
from breaks import breaks
from delayed_answers import AnswerLater, nothing_is_acknowledged
from errors import links
from oracle import LARGE, SMALL_BUFFERS, RefuseEarly
from outages import direct
from pools import DEFAULTS, UnknownSocket, counters, get, pooled_connection, serving, shim, stock
from replay_routes import Proxied, proxied
from replay_tools import BODIES, ECHO, Late, acting, asked, kind_of, outcome, prime, reused, send
from stalepool import fallback
from stalepool.connection.state import WAITING, find
from stalepool_testing import TLS, AnswerStep, BlackHole, Close, FaultServer, Reset, Step, kernel

shim_with_replay = functools.partial(shim, replay="idempotent")


@pytest.mark.parametrize(
    ("settings", "method", "times", "counted"),
    [
        ({"replay": "off"}, "GET", 1, ("replays_refused", "switched_off")),
        ({"replay": "safe"}, "PUT", 1, ("replays_refused", "method")),
        ({"replay": "safe"}, "GET", 1, ("replays", "ok")),
        ({}, "GET", 0, ("replays_refused", "fresh_connection")),
        ({"mode": "audit"}, "GET", 1, ("replays", "would")),
    ],
    ids=["off", "safe, PUT", "safe, GET", "a first request", "audit"],
)
def test_each_setting(settings, method, times, counted):
    with shim_with_replay(**settings), reused(testing.ProcessThenReset(), times=times) as (
        server,
        pool,
    ):
        outcome = send(server, pool, method)
        is_saved = counted == ("replays", "ok")
        assert kind_of(outcome.error) == (None if is_saved else "connection")
        assert (outcome.arrivals, outcome.processed) == ((2, 2) if is_saved else (1, 1))
        assert counters(server)[counted[0]] == {counted[1]: 1}


def test_the_answer_says_so():
    with shim_with_replay(), reused(Close(), maxsize=2) as (_, pool):
        answers = [
            pool.request("GET", "/", preload_content=False, **options)
            for options in ({}, {"headers": {"Connection": "close"}})
        ]
        assert [answer.stalepool_replayed for answer in answers] == [True, False]
        for answer in answers:
            answer.read()
        assert [answer.stalepool_replayed for answer in answers] == [True, False]
        assert urllib3.HTTPResponse().stalepool_replayed is False
    with stock():
        assert not hasattr(answers[0], "stalepool_replayed")


@pytest.mark.parametrize(
    "step", [testing.HalfStatusLine(), RefuseEarly()], ids=["in part", "an early 413"]
)
def test_an_answer_that_began(step):
    """What the caller sees of it is in ``test_replay_matrix``; this is how it is counted."""
    options = {"socket_options": SMALL_BUFFERS, "receive_buffer": 16384}
    with shim_with_replay(), reused(step, **options) as (server, pool):
        send(server, pool, "PUT", body=LARGE)
        assert counters(server)["replays_refused"] == {"answer_began": 1}


def test_a_request_that_the_kernel_gave_up_is_sent_again():
    """urllib3 says "Read timed out", as of the caller's own: only the errno tells them apart."""
    options = [(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)]
    with shim_with_replay(), reused(BlackHole(), socket_options=options) as (server, pool):
        server.wait_idle_step()
        outcome = send(server, pool, "GET", timeout=20)
        assert (outcome.status, outcome.arrivals) == (200, 1)
        assert counters(server)["gone"] == {"silent_in_request": 1}


@pytest.mark.parametrize("step", [Close(), Reset()], ids=repr)
def test_the_first_error_reaches_the_caller(step):
    """And what was its context, also where the caller was handling another."""
    chains = []
    for who in (stock, shim_with_replay):
        with who(), reused(default=step) as (server, pool):
            try:
                raise KeyError("what the caller is handling")
            except KeyError:
                outcome = send(server, pool, "GET")
            chain = links(outcome.error)
            chains.append([(type(link), getattr(link, "errno", None)) for link in chain])
            assert outcome.arrivals == (1 if who is stock else 2)
            assert who is stock or counters(server)["replays"] == {"failed": 1}
    assert chains[0] == chains[1]
    assert chains[0][-1][0] is KeyError


@pytest.mark.parametrize("window_s", [0, 0.4], ids=["no window", "a window"])
def test_the_connect_of_the_second_try_is_refused(window_s, sleeper):
    """The peer closes as the request arrives, and listens again a moment later."""

    def answer(request: Any) -> Step:
        if request.path != "/wanted" or way.gate.accepted > 1:
            return ECHO
        way.gate.stop_listening()
        return Close()

    with shim_with_replay(reconnect_window_s=window_s), direct(answer) as way:
        prime(way.pool)
        sleeper.after(1, way.gate.open)
        assert outcome(way.pool, "GET") == (200 if window_s else replay_tools.NO_ANSWER)
        assert asked(way.server) == (2 if window_s else 1)
        assert counters(way.gate)["replays"] == {"ok" if window_s else "failed": 1}
        assert way.reconnects == ({"ok": 1, "windows": 1} if window_s else {})


class NoteTheLimit(AnswerStep):
    """Notes how long the client waits for the answer, and answers."""

    def answer(self, exchange: testing.Exchange) -> None:
        Noting.limits_s.append(Noting.newest.gettimeout())
        ECHO.answer(exchange)


class Noting(urllib3.connection.HTTPConnection):
    """Notes the limits on its connects."""

    limits_s: ClassVar[List[Any]] = []
    newest: ClassVar[Any] = None

    def connect(self) -> None:
        self.limits_s.append(self.timeout)
        super().connect()
        Noting.newest = self.sock


@pytest.mark.parametrize(
    ("step", "body", "timeout", "taken_off_s"),
    [
        (Late(Close()), None, Timeout(connect=30, read=3), 0.15),
        (Late(Close()), None, Timeout(connect=None, read=None), None),
        # as much as is recorded, and the kernel takes little of it: the send fails
        (Late(Reset(), 0.5), b"x" * 1_000_000, Timeout(connect=3, read=3), 0.5),
    ],
    ids=["read", "none", "send"],
)
def test_both_tries_together_take_no_longer_than_one(step, body, timeout, taken_off_s):
    small = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)]
    limit_s, options = timeout.read_timeout, {"connection_class": Noting, "socket_options": small}
    with shim_with_replay(), reused(step, NoteTheLimit(), **options) as (server, pool):
        # urllib3 up to 1.26.14 sends within the timeout of the request before
        pooled_connection(pool).sock.settimeout(limit_s)
        outcome = send(server, pool, "PUT", body=body, timeout=timeout)
        assert outcome[:4] == (200, True, None, 2)
        assert server.journal[-1].body == (body or b"")
        connect_s, found_s = Noting.limits_s[-2:]
        afterwards_s = pooled_connection(pool).sock.gettimeout()
        if limit_s is None:
            assert (found_s, afterwards_s) == (None, None)
            return
        assert 0 < found_s <= limit_s - taken_off_s
        assert 0 < connect_s <= limit_s - taken_off_s
        # on the connection that goes on living the caller's own is set again
        assert found_s < afterwards_s <= limit_s


class SlowProxy(testing.ConnectProxy):
    """Takes its time with every tunnel but the first."""

    def _tunnel(self, channel: Any, request: Any) -> None:
        if self.tunnels:
            channel.pause(0.3)
        super()._tunnel(channel, request)


@contextlib.contextmanager
def tunnelled(*steps: Step, default: Any = ECHO, **options: Any) -> Iterator[Proxied]:
    """A tunnel that has answered."""
    with proxied([ECHO, *steps], tls=TLS(), default=default, **options) as way:
        prime(way.pool)
        yield way


@pytest.mark.skipif(pools.VERIFIES_NAMES_ALONE, reason="this urllib3 reaches no proxy by TLS here")
def test_a_tunnel_in_tls():
    with shim_with_replay(), tunnelled(Close(), proxy_tls=TLS()) as way:
        assert send(way.server, way.pool, "PUT")[:4] == (200, True, None, 2)
        assert len(way.proxy.tunnels) == 2


def test_a_tunnel_that_takes_longer_than_is_left():
    """The first error, and no request in it."""
    with shim_with_replay(), tunnelled(Late(Close()), proxy_class=SlowProxy) as way:
        outcome = send(way.server, way.pool, "GET", timeout=Timeout(connect=30, read=0.3))
        assert kind_of(outcome.error) == "connection"
        assert outcome.arrivals == 1
        assert counters(way.server)["replays"] == {"failed": 1}


def test_a_socket_of_unknown_kind():
    """It cannot be asked anything. Its requests go out, and what fails is the caller's."""
    with shim(**DEFAULTS), reused(ECHO, Close()) as (server, pool):
        pooled_connection(pool).sock = UnknownSocket(pooled_connection(pool).sock)
        assert send(server, pool, "POST")[:2] == (200, True)
        outcome = send(server, pool, "GET")
        assert kind_of(outcome.error) == "connection"
        assert outcome.arrivals == 1
        assert set(fallback.counts()) == {"unknown_connection"}


def test_the_first_error_through_a_tunnel():
    """urllib3 2.x words it by whether its proxy was reached, and that must be the first one's."""
    chains = []
    for who in (stock, shim_with_replay):
        with who(), tunnelled(default=Reset()) as way:
            replay_tools.after_checkout(
                way.pool, replay_tools.have(way.server, testing.ResetAfter(), kernel.POLLRDHUP)
            )
            outcome = send(way.server, way.pool, "PUT")
            chains.append([type(link) for link in links(outcome.error)])
            if who is not stock:
                assert counters(way.server)["replays"] == {"failed": 1}
    # where sending raises a ConnectionError (Python 3.8, 3.13), urllib3 swallows it and raises what
    # reading says then; a replay that failed leaves the first error alone to be raised
    if not any(issubclass(link, ConnectionError) for link in chains[1]):
        assert chains[0] == chains[1]


def test_nothing_is_left_on_the_connection_nor_in_memory():
    """Not even until the next garbage collection: the first error's traceback holds much."""
    with shim_with_replay(), reused(Close()) as (server, pool):
        conn = pooled_connection(pool)
        sock, names = weakref.ref(conn.sock), set(vars(conn))
        gc.collect()
        gc.disable()
        try:
            assert send(server, pool, "GET").status == 200
            assert conn is pooled_connection(pool)
            assert [name for name in set(vars(conn)) - names if "verified" not in name] == []
            assert sock() is None
        finally:
            gc.enable()


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
        replay_tools.after_checkout(
            pool, replay_tools.have(server, testing.ResetAfter(), kernel.POLLRDHUP)
        )
        outcome = send(server, pool, "GET")
        assert isinstance(outcome.error, urllib3.exceptions.ProtocolError)
        assert (kind_of(outcome.error), outcome.arrivals) == ("connection", 0)
        assert counters(server)["replays"] == {"failed": 1}


# each gives a function that sends one request to a URL, and returns the status


@contextlib.contextmanager
def with_urllib3(retries):
    with urllib3.PoolManager(retries=retries, timeout=10.0) as manager:
        yield lambda method, url: manager.request(method, url, body=BODIES.get(method)).status


@contextlib.contextmanager
def with_requests(retries):
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retries))
        send = functools.partial(session.request, timeout=10)
        yield lambda method, url: send(method, url, data=BODIES.get(method)).status_code


@contextlib.contextmanager
def with_keystoneauth1(retries):
    options = {"connect_retries": retries, "connect_retry_delay": 0.001, "raise_exc": False}
    with requests.Session() as below:
        send = functools.partial(Session(session=below).request, **options)
        yield lambda method, url: send(url, method, data=BODIES.get(method)).status_code


CLIENTS = {
    "urllib3, retries=False": lambda: with_urllib3(False),
    "urllib3, Retry(3)": lambda: with_urllib3(Retry(3, backoff_factor=0)),
    "requests": lambda: with_requests(0),
    "requests, Retry(2)": lambda: with_requests(Retry(2, backoff_factor=0)),
    "keystoneauth1, connect_retries=2": lambda: with_keystoneauth1(2),
}


def wanted(call, method, server):
    """The status, 0 for an error, on a connection that has answered; how often it arrived."""
    assert call("GET", server.url + "prime") == 200
    try:
        status = call(method, server.url + "wanted")
    except (urllib3.exceptions.HTTPError, requests.ConnectionError, ConnectFailure):
        status = 0
    return status, server.journal.count(path="/wanted")


@pytest.mark.parametrize("name", CLIENTS)
def test_one_attempt_is_seen(name):
    with shim(replay="idempotent"), FaultServer([ECHO, Close()], default=ECHO) as server:
        with CLIENTS[name]() as call:
            assert wanted(call, "PUT", server) == (200, 2)
        assert counters(server)["replays"] == {"ok": 1}  # the client has not sent it again
        assert server.journal[-1].body == BODIES["PUT"]


@pytest.mark.each_value
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", CLIENTS)
def test_the_clients_own_retries_go_on_as_they_would(name, method):
    """Every answer fails; each of their tries is on a fresh connection, and none is replayed."""
    found = []
    for who in (stock, lambda: shim(replay="idempotent")):
        with who(), FaultServer([ECHO], default=Close()) as server, CLIENTS[name]() as call:
            found.append(wanted(call, method, server))
    assert found[1] == (found[0][0], found[0][1] + (method == "GET"))
