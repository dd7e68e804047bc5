"""Replay: within what time, with which result, and what may happen meanwhile."""

import functools
import http.client
import signal
import socket
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import requests
import urllib3
from keystoneauth1.exceptions import ConnectFailure
from keystoneauth1.session import Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.util import Retry, Timeout

import replay_tools
import stalepool
import stalepool_testing as testing
from breaks import breaks
from delayed_answers import LOST, SILENT, AnswerLater, nothing_is_acknowledged, sent_twice
from errors import links
from freed import is_freed_under_eventlet
from oracle import LARGE, SMALL_BUFFERS, RefuseEarly
from pools import counters, get, in_stock, pooled_connection, serving, shim, stock
from replay_routes import direct, proxied
from replay_tools import ECHO, asked, outcome, prime, reset_after_checkout, reused, send
from stalepool import runtime, stats
from stalepool.connection import replay
from stalepool.connection.state import Request, find
from stalepool.sockets import tcp_info
from stalepool_testing import TLS, AnswerStep, Close, FaultServer, Reset, Respond, Silence, kernel

SETTINGS = {"replay": "idempotent", "silence_s": 1}
shim_with_replay = functools.partial(shim, **SETTINGS)
SLOW_READER = testing.ZeroWindow(0.6)


def test_the_answer_says_so():
    with shim_with_replay(), reused(Close(), maxsize=2) as (_, pool):
        answers = [
            pool.request("GET", "/", preload_content=False, **options)
            for options in ({}, {"headers": {"Connection": "close"}})
        ]
        for _ in range(2):
            assert [answer.stalepool_replayed for answer in answers] == [True, False]
            for answer in answers:
                answer.read()
        assert urllib3.HTTPResponse().stalepool_replayed is False
    with stock():
        assert not hasattr(answers[0], "stalepool_replayed")


@pytest.mark.parametrize("method, body, step", [("GET", b"", ECHO), ("PUT", LARGE, SLOW_READER)])
def test_a_request_that_the_kernel_gave_up_is_sent_again(method, body, step):
    """urllib3 says "Read timed out", as of the caller's own: only the errno tells them apart."""
    limit = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
    options = {**SMALL_BUFFERS, "socket_options": [*SMALL_BUFFERS["socket_options"], limit]}
    with shim_with_replay(), breaks("limit of a replay's connect", by=0.3), reused(
        testing.BlackHole(), step, **options
    ) as (server, pool):
        server.wait_idle_step()
        assert send(server, pool, method, body=body, timeout=20)[::3] == (200, 1)
        assert counters(server)["gone"] == {"silent_in_request": 1}


@pytest.mark.parametrize(
    ("step", "is_sent"),
    [(Close(), True), (Reset(), True), (Reset(), False)],
    ids=["FIN", "RST", "RST before it is sent"],
)
def test_the_first_error_reaches_the_caller(step, is_sent):
    """With its context, also where the caller was handling another error.

    urllib3 2.x words it by whether its proxy was reached, and that must be the first one's.
    """
    chains = []
    for who in (stock, shim_with_replay):
        with who(), proxied([ECHO], tls=TLS(), default=step) as way:
            prime(way.pool)
            if not is_sent:
                reset_after_checkout(way.server, way.pool)
            try:
                raise KeyError("what the caller is handling")
            except KeyError:
                outcome = send(way.server, way.pool, "GET" if is_sent else "PUT")
            chains.append([(type(e), getattr(e, "errno", None)) for e in links(outcome.error)])
            assert outcome.arrivals == is_sent + (who is not stock)
            assert who is stock or counters(way.server)["replays"] == {"failed": 1}
    # where sending raises a ConnectionError (Python 3.8, 3.13), urllib3 swallows it and raises what
    # reading says then; a replay that failed leaves the first error alone to be raised
    if is_sent or not any(issubclass(cls, ConnectionError) for cls, _ in chains[1]):
        assert chains[0] == chains[1]
    assert chains[1][-1][0] is KeyError


def test_the_connect_of_the_second_try_is_refused(sleeper):
    """The peer closes as the request arrives, and listens again a moment later."""

    def answer(request):
        if request.path != "/wanted" or len(way.server.journal.connections) > 1:
            return ECHO
        way.server.stop_listening()
        return Close()

    with shim_with_replay(reconnect_window_s=60), direct(answer) as way:
        prime(way.pool)
        sleeper.after(1, way.server.listen)
        assert outcome(way.pool, "GET") == 200
        counted = counters(way.server)["replays"], way.reconnects
        assert counted == ({"ok": 1}, {"ok": 1, "windows": 1})


@pytest.mark.parametrize(
    ("step", "body", "timeout", "taken_off_s"),
    [
        (replay_tools.Late(Close()), None, Timeout(connect=1, read=1.5), 0.15),
        (replay_tools.Late(Close()), None, Timeout(connect=None, read=None), None),
        # as much as is recorded: the send fails
        (replay_tools.Late(Reset(), 0.5), b"x" * 1_000_000, Timeout(connect=2, read=2), 0.5),
    ],
    ids=["read", "none", "send"],
)
def test_both_tries_together_take_no_longer_than_one(step, body, timeout, taken_off_s):
    limit_s, seen = timeout.read_timeout, SimpleNamespace()

    class NoteTheLimit(AnswerStep):
        def answer(self, exchange):
            if limit_s is None:  # as the send had
                kernel.wait_until(lambda: seen.sock.gettimeout() is None, "a client that waits")
            seen.found_s = seen.sock.gettimeout()
            ECHO.answer(exchange)

    def note(conn):
        seen.connect_s, seen.sock = conn.timeout, conn.sock

    steps, noting = [step, NoteTheLimit()], replay_tools.wrapped_by_a_tracer(HTTPConnection, note)
    options = {"connection_class": noting, "socket_options": SMALL_BUFFERS["socket_options"]}
    with shim_with_replay(), reused(*steps, **options) as (server, pool):
        # urllib3 up to 1.26.14 sends within the timeout of the request before
        pooled_connection(pool).sock.settimeout(limit_s)
        assert send(server, pool, "PUT", body=body, timeout=timeout)[:4] == (200, True, None, 2)
        assert server.journal[-1].body == (body or b"")
        afterwards_s = pooled_connection(pool).sock.gettimeout()
        if limit_s is None:
            assert (seen.connect_s, seen.found_s, afterwards_s) == (replay.REPLAY_S, None, None)
            return
        assert 0 < seen.found_s <= limit_s - taken_off_s
        assert 0 < seen.connect_s <= min(timeout.connect_timeout, limit_s - taken_off_s)
        # on the connection that goes on living the caller's own is set again
        assert seen.found_s < afterwards_s <= limit_s


# -- what may happen meanwhile ---------------------------------------------------------------------


def install_anew(*_):
    stalepool.uninstall()
    stalepool.install(**SETTINGS)


def assert_the_error_is_the_callers(server, pool, arrivals):
    outcome = send(server, pool, "GET")
    assert isinstance(outcome.error, urllib3.exceptions.ProtocolError)
    assert (replay_tools.kind_of(outcome.error), outcome.arrivals) == ("connection", arrivals)


def test_installed_anew_while_it_connects():
    """The install finds no request in flight yet."""
    with shim_with_replay(), serving([Close()]) as (server, pool):
        pool.ConnectionCls = replay_tools.wrapped_by_a_tracer(HTTPConnection, install_anew)
        outage = stats.origin(server.url.rstrip("/")).knowledge
        outage.has_answered, outage.window_until = True, time.monotonic() + 20
        assert_the_error_is_the_callers(server, pool, 1)


def test_closed_while_the_fresh_socket_is_opened():
    """Nothing is sent on it."""
    # the next check is a fast one, which does not ask
    with shim_with_replay(), reused(Close(), times=2) as (server, pool):
        replay_tools.acting(pool, pooled_connection(pool).close)
        assert_the_error_is_the_callers(server, pool, 1)
        server.wait_ended(1)
        assert asked(server) == 1


MEANWHILE = {"answered": [0, 0], "installed": [0, 0], "closed": [0, 0], "closed later": [0, 0, 1]}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_while_a_silent_ones_request_is_sent_on_another(meanwhile):
    """The old socket is read on, as in stock; a request goes out if nothing speaks against it."""
    later = AnswerLater(threading.Event())

    def answer(request):
        if later.came.is_set():  # on the fresh one
            conn.close()
            later.told.set()
        elif request.path == "/wanted":
            return later
        return ECHO

    def opened():
        if meanwhile == "closed later":
            return
        if meanwhile == "installed":
            install_anew()
        elif meanwhile == "closed":
            conn.close()
        later.told.set()
        kernel.wait_until(lambda: kernel.unread_bytes(sock) > 0, "an answer")

    with shim_with_replay(), serving(answer) as (server, pool), nothing_is_acknowledged():
        prime(pool)
        conn = pooled_connection(pool)
        sock = conn.sock
        replay_tools.acting(pool, opened)
        assert get(pool, "/wanted") == 200
        server.wait_ended(1)
        assert [entry.connection for entry in server.journal] == MEANWHILE[meanwhile]
        assert "ok" not in counters(server)["replays"]


def test_only_so_many_requests_have_a_second_socket():
    with shim_with_replay(), serving() as (server, pool):
        assert get(pool) == 200
        conn = pooled_connection(pool)
        second = replay.Replay(Request(find(conn.sock), conn, b"GET / HTTP/1.1", runtime.current))

        def opened():
            return second.open_beside(5), second.sock is not None, len(replay._beside)

        others = [replay.Replay(second.request) for _ in range(replay.MOST_BESIDE)]
        replay._beside.update(others)
        assert opened() == (False, False, replay.MOST_BESIDE)
        replay._beside.remove(others[0])
        assert opened() == (True, True, replay.MOST_BESIDE)
        second.close()
        server.stop_listening()
        assert opened() == (False, False, replay.MOST_BESIDE)
        second.close()
        assert len(replay._beside) == replay.MOST_BESIDE - 1
        stalepool.uninstall()
        assert not replay._beside


@pytest.mark.parametrize("kind", [type("JobTimeout", (OSError,), {}), ConnectionResetError])
def test_a_deadline_that_is_an_oserror(alarm, kind):
    """Of a signal handler, while the second answer is awaited."""

    def answer(*_):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        return Silence()

    alarm(kind("over"), seconds=60)  # socket.py of Python 3.8 looks into its arguments
    with sent_twice(answer) as (_, pool, _):
        assert outcome(pool, "GET") == ["ProtocolError", kind.__name__]


def test_another_thread_shuts_down_the_socket_of_a_silent_one():
    """That ends the request, as in stock."""

    def shut_down(_, conn):
        conn.sock.shutdown(socket.SHUT_RDWR)
        return Silence()

    with sent_twice(shut_down) as (_, pool, _):
        assert outcome(pool, "GET") == replay_tools.NO_ANSWER


class LimitsEachWrite(socket.socket):
    """As eventlet's and pyOpenSSL's does; and its timeouts have no words, as with the latter."""

    __slots__ = ()

    def sendall(self, data, flags=0):
        try:
            while data:
                data = data[self.send(data, flags) :]
        except socket.timeout:
            raise socket.timeout from None


@pytest.mark.parametrize("limits_each", [False, True])
def test_a_send_that_takes_long_beside_an_answer(limits_each, monkeypatch):
    """The second sending is read slowly, while the first one is answered."""
    connect = urllib3.util.connection.create_connection

    def create_connection(*args, **options):
        sock = connect(*args, **options)
        sock.__class__ = LimitsEachWrite
        return sock

    def answer(later, _):
        later.told.set()
        server.add(testing.Bandwidth(70_000, "up"))
        return ECHO

    if limits_each:
        monkeypatch.setattr(urllib3.util.connection, "create_connection", create_connection)
    body = (LARGE[:30_000] for _ in range(10))
    with breaks("limit of a replay's connect", by=0.5):
        with sent_twice(answer, **SMALL_BUFFERS) as (server, pool, _):
            headers = {"Content-Length": str(len(LARGE))}
            assert pool.request("GET", "/wanted", body=body, headers=headers).status == 200


@pytest.mark.parametrize("status", [200, 403])
def test_the_end_of_a_silent_one_is_not_that_of_its_request(status):
    """Its host has booted, and resets it while the second sending is in work."""
    reset = ["ProtocolError", "ConnectionResetError"]
    wanted, became = (status, "ok") if status == 200 else (reset, "failed")
    is_sent, ask = threading.Event(), tcp_info.ask

    def say(layers):
        return ask(layers) if is_sent.is_set() else SILENT._replace(**LOST)

    def answer(request):
        if len(server.journal.connections) == 1:
            return Silence() if request.path == "/wanted" else ECHO
        is_sent.set()
        server.channels[0].tell(server.channels[0].reset)
        kernel.wait_until(lambda: conn.sock is not sock, "a client that has seen it")
        return Respond(status)

    with shim_with_replay(), serving(answer, timeout=20) as (server, pool):
        with breaks("TCP_INFO", by=say):
            prime(pool)
            conn = pooled_connection(pool)
            sock = conn.sock
            assert outcome(pool, "GET") == wanted
        assert counters(server)["replays"] == {became: 1}
        assert counters(server)["gone"] == {"silent_in_request": 1}


@pytest.mark.usefixtures("no_collector")
def test_the_end_of_a_suspect_one_closes_the_socket_that_was_opened_beside_it():
    """That was to be probed; the request goes out on one of its own.

    Nothing is left of the suspect one, not even until the next garbage collection.
    """

    def answer(request):
        is_first = request.path == "/wanted" and len(server.journal.connections) == 1
        return Silence() if is_first else ECHO

    ask, suspect = tcp_info.ask, SILENT._replace(probes=1)
    with shim_with_replay(), serving(answer) as (server, pool):
        prime(pool)
        old, sock = server.channels[0], weakref.ref(pooled_connection(pool).sock)
        replay_tools.acting(pool, lambda: old.is_open and old.tell(old.reset))
        with breaks("TCP_INFO", by=lambda layers: suspect if old.is_open else ask(layers)):
            assert get(pool, "/wanted") == 200
        assert sock() is None
        server.wait_ended(1)
        assert [entry.connection for entry in server.journal] == [0, 0, 2]
        assert counters(server)["gone"] == {"failed_in_request": 1}


def test_a_deadline_while_the_body_of_a_replay_is_sent(monkeypatch):
    """It is no end of the connection, and not to be taken for the first error."""
    stock_send = http.client.HTTPConnection.send

    def give_up(self, data):
        if data == b"abc":
            raise TimeoutError("the caller's deadline")
        stock_send(self, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", give_up)
    with shim_with_replay(), reused() as (server, pool):
        reset_after_checkout(server, pool)
        options = {"body": iter([b"abc"]), "headers": {"Content-Length": "3"}}
        error = send(server, pool, "PUT", **options).error
        assert "the caller's deadline" in [str(link) for link in links(error)]
        server.wait_ended(1)  # the head was sent there


def test_an_early_refusal_of_the_body_of_a_replay():
    """It is what it would be to the first sending: an error before urllib3 1.26.20."""
    with stock(), serving(default=RefuseEarly(), **SMALL_BUFFERS) as (server, pool):
        first = send(server, pool, "PUT", body=LARGE).status
    with shim_with_replay(), reused(default=RefuseEarly(), **SMALL_BUFFERS) as (server, pool):
        reset_after_checkout(server, pool)
        assert send(server, pool, "PUT", body=LARGE).status == first
        assert counters(server)["replays"] == {}  # it has not failed


def test_a_node_that_does_not_read_the_second_sending():
    """The caller, who has no connect timeout, gets the first error."""
    with shim_with_replay(), breaks("limit of a replay's send", by=0.3), reused(
        Reset(), testing.ZeroWindow(20), **SMALL_BUFFERS
    ) as (server, pool):
        limits = Timeout(connect=None, read=5)
        outcome = send(server, pool, "PUT", body=LARGE, timeout=limits)
        assert (replay_tools.kind_of(outcome.error), outcome.arrivals) == ("connection", 2)
        assert counters(server)["replays"] == {"failed": 1}


def a_replay_that_is_not_read():
    def answer(later, _):
        later.told.set()
        return testing.ZeroWindow(15)

    with breaks("limit of a replay's connect", by=0.5):
        with sent_twice(answer, **SMALL_BUFFERS) as (_, pool, _):
            assert pool.request("GET", "/wanted", body=LARGE).status == 200


def a_replay_that_is_answered_late():
    with sent_twice(lambda *_: Respond(delay_s=1), outcome="ok") as (_, pool, _):
        assert get(pool, "/wanted") == 200


@pytest.mark.parametrize("scene", [a_replay_that_is_not_read, a_replay_that_is_answered_late])
def test_a_replay_leaves_nothing_in_memory(call_python, scene):
    assert is_freed_under_eventlet(call_python, scene)


def test_a_send_that_fails_when_nobody_listens_any_more():
    """The error is the send's, and not that of the connect."""
    with shim_with_replay(reconnect_window_s=0), reused() as (server, pool):
        server.stop_listening()
        reset_after_checkout(server, pool)
        assert_the_error_is_the_callers(server, pool, 0)
        assert counters(server)["replays"] == {"failed": 1}


@pytest.mark.parametrize("version", [None, "TLSv1.3"])
def test_a_replay_whose_body_cannot_be_sent(version):
    """It began as the head could not be sent; the fresh connection is reset before the body is."""

    def body():
        kernel.wait_readable(conn.sock, events=kernel.POLLRDHUP)
        yield b"abc"

    with shim_with_replay(), reused(default=Reset(), tls=version) as (server, pool):
        conn = pooled_connection(pool)
        reset_after_checkout(server, pool)
        outcome = send(server, pool, "PUT", body=body(), headers={"Content-Length": "3"})
        assert (replay_tools.kind_of(outcome.error), outcome.arrivals) == ("connection", 1)
        assert len(server.journal.connections) == 2
        assert counters(server)["replays"] == {"failed": 1}


# -- clients, and what they count as an attempt ----------------------------------------------------


def with_urllib3(retries):
    manager = urllib3.PoolManager(retries=retries, timeout=10.0)
    return manager, lambda method, url, body: manager.request(method, url, body=body).status


def with_requests(retries=0):
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retries))
    send = functools.partial(session.request, timeout=10)
    return session, lambda method, url, body: send(method, url, data=body).status_code


def with_keystoneauth1():
    options = {"connect_retries": 2, "connect_retry_delay": 0.001, "raise_exc": False}
    below = requests.Session()
    send = functools.partial(Session(session=below).request, **options)
    return below, lambda method, url, body: send(url, method, data=body).status_code


#: each makes what is to be closed, and a function that sends a request
CLIENTS = {
    "urllib3, retries=False": lambda: with_urllib3(False),
    "urllib3, Retry(3)": lambda: with_urllib3(Retry(3, backoff_factor=0)),
    "requests": with_requests,
    "requests, Retry(2)": lambda: with_requests(Retry(2, backoff_factor=0)),
    "keystoneauth1, connect_retries=2": with_keystoneauth1,
}


@pytest.mark.parametrize("method, default", [("PUT", ECHO), ("GET", Close()), ("POST", Close())])
@pytest.mark.parametrize("name", CLIENTS)
def test_one_attempt_is_seen(name, method, default):
    """Where it is saved, nobody sends it again. Where every answer fails, the client's own retries
    go on as they would: each is on a fresh connection, and none is replayed.
    """

    def wanted():
        with FaultServer([ECHO, Close()], default=default) as server:
            client, call = CLIENTS[name]()
            with client:
                assert call("GET", server.url + "prime", None) == 200
                try:
                    status = call(method, server.url + "wanted", replay_tools.BODIES.get(method))
                except (urllib3.exceptions.HTTPError, requests.ConnectionError, ConnectFailure):
                    status = 0
            return [status, asked(server), counters(server).get("replays")]

    with shim(replay="idempotent"):
        found = wanted()
    if default is ECHO:
        assert found == [200, 2, {"ok": 1}]
    else:
        status, times, _ = in_stock(wanted)
        assert found[:2] == [status, times + (method == "GET")]


def test_a_replay_that_the_caller_gave_up_does_not_arrive():
    """The server has no thread for it, and its window is full: the rest lies here, unsent."""
    has_failed = threading.Event()

    class ReadLater(AnswerStep):
        keeps_connection = False

        def answer(self, exchange):
            assert has_failed.wait(20)
            exchange.process()

    steps = [testing.ProcessThenReset(), ReadLater()]
    with shim_with_replay(), reused(*steps, receive_buffer=16384) as (server, pool):
        with pytest.raises(urllib3.exceptions.ProtocolError):
            pool.request("PUT", "/wanted", body=LARGE, timeout=Timeout(connect=5, read=1))
        has_failed.set()
        server.wait_ended(1)
        assert [entry.processed for entry in server.journal][1:] == [True, False]
