"""The wait for an answer, what ends it, and what it shows of its connection."""

import contextlib
import copy
import copyreg
import gc
import http.client
import io
import pickle
import socket
import struct
import threading
import time
from types import SimpleNamespace

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import lanes
import pools
import replay_tools
import stalepool
import stalepool_testing as testing
from breaks import breaks
from delayed_answers import AnswerLater, nothing_is_acknowledged
from errors import links
from pools import counters, get, pooled_connection, serving, shim, stock
from replay_tools import ECHO, NO_ANSWER, asked, outcome, reused, send, side_by_side
from stalepool.connection.state import find
from stalepool_testing import Close, ConnectProxy, FaultServer, Respond, Silence


def test_an_answer_to_a_request_from_before_an_uninstall():
    """The class is kept on the instance, as botocore does."""
    with shim(), serving() as (_, pool):
        conn = pool._get_conn()
        conn.response_class = conn.response_class
        for _ in range(2):
            conn.request("GET", "/")
            stalepool.uninstall()
            response = conn.getresponse()
            assert (response.status, response.read()) == (200, b"")
        assert stalepool.snapshot()["fallbacks"] == {}
        pool._put_conn(conn)


def test_an_answer_on_what_no_connection_has():
    """A socket that nobody knows; and what tests of HTTP clients have in its place."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    one, other = socket.socketpair()
    with shim(), one, other:
        other.sendall(answer)
        for sock in (one, SimpleNamespace(makefile=lambda mode: io.BytesIO(answer))):
            response = HTTPConnection("127.0.0.1", 1).response_class(sock)
            response.begin()
            assert response.read() == b"ok"
            response.close()
        assert stalepool.snapshot()["fallbacks"] == {}


@pytest.mark.parametrize("times, step, status", [(1, Close(), None), (0, Respond(), 200)])
def test_an_answer_whose_connection_is_gone(times, step, status):
    with shim(replay="idempotent"), reused(step, times=times) as (server, pool):
        conn = pool._get_conn()
        conn.request("GET", "/wanted")
        sock, conn.sock = conn.sock, None
        response = conn.response_class(sock, method="GET")
        del conn
        gc.collect()
        ends = contextlib.nullcontext() if status else pytest.raises(http.client.RemoteDisconnected)
        with sock, ends:
            response.begin()
            assert response.status == status
        response.close()
        assert (asked(server), stalepool.snapshot()["fallbacks"]) == (1, {})


def test_a_receive_timeout_of_the_kernels_ends_the_request():
    """Stock: the read seems to have found the end. Nothing has ended, so nothing is replayed."""
    options = [(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 300_000))]
    ends = []
    for who in (stock(), *(shim(replay="idempotent", silence_s=each) for each in ("off", 1))):
        with who, reused(Silence(), timeout=None, socket_options=options) as (server, pool):
            ends.append((outcome(pool, "GET"), asked(server)))
    assert ends == [(NO_ANSWER, 1)] * 3


BOUND, LIMITED, UPGRADED = "bound to an identity", "idle limit 7 s", "upgraded"


@pytest.mark.parametrize(
    ("asked_with", "answer", "shown"),
    [
        ({}, Respond(), []),
        ({}, Respond(401, headers={"WWW-Authenticate": "Negotiate"}), [BOUND]),
        ({}, Respond(407, headers={"Proxy-Authenticate": "Negotiate"}), [BOUND]),
        ({}, Respond(401, headers={"WWW-Authenticate": 'Basic realm="x"'}), []),
        ({"Authorization": "Negotiate x"}, Respond(), [BOUND]),
        ({"Authorization": "Bearer x"}, Respond(), []),
        ({}, Respond(headers={"Keep-Alive": "timeout=7"}), [LIMITED]),
        ({"Connection": "Upgrade", "Upgrade": "tcp"}, Respond(), [UPGRADED]),
        ({}, Respond(101), [UPGRADED]),
    ],
)
def test_what_a_later_answer_shows_of_its_connection(asked_with, answer, shown):
    """After the first one of a connection everything is asked; later there has to be a reason."""
    with shim(), serving([Respond(), answer]) as (_, pool):
        assert get(pool) == 200
        assert pool.request("GET", "/", headers=asked_with).status == answer.status
        found = repr(find(pooled_connection(pool).sock))
    assert [words for words in (BOUND, LIMITED, UPGRADED) if words in found] == shown


@pytest.mark.parametrize(
    ("step", "stops"),
    [
        (Respond(), False),
        # the server may have no slot free for it
        (Respond(delay_s=1.1), True),
        # or permits no more connections, or asks for what the old one has shown: a certificate
        *((Respond(status), True) for status in (401, 403, 413, 429, 503)),
    ],
)
def test_what_the_answer_to_a_moved_request_says_of_moves(step, stops):
    with shim(nonidempotent_max_idle_s=0), reused(step) as (server, pool):
        send(server, pool, "POST")
        counted = counters(server)
        assert counted["moved"] == {"idle_setting": 1}
        assert bool(counted["knowledge"]["moves_stopped_for_s"]) is stops


def test_an_announced_limit_that_is_outlived_moves_three_posts():
    """At any pause within its margin each POST would take a fresh connection, for good."""
    limited = Respond(headers={"Keep-Alive": "timeout=1"})
    settings = {"nonidempotent_max_idle_s": "auto"}
    with shim(**settings), serving(default=limited) as (server, pool):
        with breaks("TCP_INFO", by=lambda _: None):  # so that the clock of the test counts
            for _ in range(6):
                assert pool.request("POST", "/").status == 200
                pools.let_pass(pool, 1.1)
        assert len({entry.connection for entry in server.journal}) == 4


def test_an_answer_is_pickled_and_copied_as_http_clients(monkeypatch):
    """requests-cache 0.5 pickles it, after its body is read. How may be registered, too."""
    with shim(), serving() as (_, pool):
        answer = pool.request("GET", "/")._original_response
        for made in (pickle.loads(pickle.dumps(answer)), copy.copy(answer)):
            assert type(made) is http.client.HTTPResponse
            assert (made.status, made.getheaders()) == (answer.status, answer.getheaders())

        conn = pooled_connection(pool)
        own = conn.response_class = type("Own", (conn.response_class,), {})
        of_own = pool.request("GET", "/")._original_response
        assert type(of_own) is own and type(copy.copy(of_own)) is own

        as_x = http.client.HTTPResponse, lambda it: (str, ("x",))
        monkeypatch.setitem(copyreg.dispatch_table, *as_x)
        del conn.response_class
        answer = pool.request("GET", "/")._original_response
        assert pickle.loads(pickle.dumps(answer)) == copy.copy(answer) == "x"


@pytest.mark.parametrize(
    ("before", "silence_s", "answered_after_s"),
    [([], 15, 0), ([], 1, 1.0), ([Close()], 15, 0)],
    ids=["first wait", "watched", "a replay"],
)
def test_another_thread_closes_the_connection(before, silence_s, answered_after_s):
    """Stock: the file object holds the socket, and the answer is read."""
    later = AnswerLater(threading.Event())
    with shim(replay="idempotent", silence_s=silence_s), reused(*before, later) as (_, pool):
        conn = pooled_connection(pool)

        def end():
            assert later.came.wait(20)
            time.sleep(0.2)  # until it is waited for
            conn.close()
            time.sleep(answered_after_s)
            later.told.set()

        _, seen = side_by_side([end, lambda: outcome(pool, "GET", timeout=None)])
        assert seen == 200 or (before and seen == NO_ANSWER)


def test_the_answer_to_a_replay_beside_a_silent_peer_is_read():
    with shim(replay="idempotent", silence_s=1), reused(Silence()) as (server, pool):
        with nothing_is_acknowledged():
            assert outcome(pool, "GET") == 200
        assert [entry.connection for entry in server.journal] == [0, 0, 1]


class Deadline(Exception):
    """A class of the application's own."""


WAIT, REPLAY = [Silence()], [Close(), Silence()]
#: what a signal handler raises, the caller's timeout, what the request meets, and when
ALARMS = {
    "as of a read timeout, in a replay": (TimeoutError, None, REPLAY, 0.2),
    # both take a round number of seconds, and the handler has a socket's words
    "as of a read timeout, as the first wait ends": (TimeoutError, 60.0, WAIT, 1.0),
    "a builtin one": (ValueError, 60.0, WAIT, 0.2),
    "its own, in a replay": (Deadline, 60.0, REPLAY, 0.2),
    "no Exception": (KeyboardInterrupt, None, REPLAY, 0.2),
}


@pytest.mark.parametrize("kind, timeout, steps, seconds", ALARMS.values(), ids=ALARMS)
def test_an_alarm_ends_the_wait(alarm, kind, timeout, steps, seconds):
    """Stock: it ends the wait for the first answer; a replay's is one more wait to be ended.

    Also while the caller handles another connection's end, which Python makes its context.
    """
    error, silence_s = kind("the job timed out"), 1 if seconds == 1 else 15
    with shim(replay="idempotent", silence_s=silence_s), reused(*steps) as (server, pool):
        began, sock = time.monotonic(), pooled_connection(pool).sock
        with pytest.raises(BaseException, match="timed out") as raised:
            try:
                raise ConnectionResetError(104, "of another connection")
            except ConnectionResetError:
                alarm(error, seconds)
                pool.request("GET", "/wanted", timeout=timeout)
        assert time.monotonic() - began < 5
        assert asked(server) <= len(steps)
        assert counters(server)["replays_refused"] == {}
        assert sock.gettimeout() == timeout
    # urllib3 makes a ReadTimeoutError of some
    assert raised.value is error or kind in (TimeoutError, ValueError)
    assert error in links(raised.value)
    assert any(isinstance(link, ConnectionResetError) for link in links(raised.value))


GREEN = """
    import importlib, json, sys
    from greenlet import GreenletExit
    from pools import answer_no_connect, counters, shim
    from replay_tools import links, reused
    from stalepool_testing import Close, Silence

    green = importlib.import_module(sys.argv[1])

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
                replays = {} if len(steps) == 1 else {"failed": 1}
                assert (counted["replays"], counted["replays_refused"]) == (replays, {})

    with shim(replay="idempotent"), reused(Close()) as (server, pool):
        answer_no_connect(server)
        try:
            with green.Timeout(0.5, ValueError("mine")):
                pool.request("GET", "/")
        except ValueError as error:
            print(json.dumps(str(error)))
"""


@pytest.mark.parametrize("hub", lanes.HUBS)
@pytest.mark.parametrize("world", ["eventlet", "gevent"])
def test_what_ends_a_green_caller_goes_through(run_python, world, hub):
    """A library's own timeout, a kill, and an ``Exception`` of a timer's; also in a replay."""
    flags = ["-Wignore::ResourceWarning"]
    assert run_python(GREEN, world, world=world, env=hub, flags=flags) == "mine"


@pytest.mark.parametrize("what", ["replay", "move"])
def test_without_a_connect_timeout_a_fresh_socket_is_not_waited_for(what):
    """Stock: the error comes at once. By the time of the fresh one the origin swallows SYNs."""
    with shim(**pools.DEFAULTS), reused(*[Close()] * (what == "replay")) as (server, pool):
        pools.answer_no_connect(server)
        pool.timeout = urllib3.Timeout()
        pooled_connection(pool).timeout = None
        if what == "move":
            end = replay_tools.have(server, testing.CloseAfter(0), testing.kernel.POLLRDHUP)
            replay_tools.after_checkout(pool, end)
        began = time.monotonic()
        with breaks("limit of a %s's connect" % what, by=0.5):
            with pytest.raises(urllib3.exceptions.ProtocolError):
                pool.request("GET" if what == "replay" else "POST", "/", timeout=None)
        assert time.monotonic() - began < 20


def test_a_deadline_ends_the_opening_of_a_fresh_socket(alarm):
    """Stock: it ends the wait for the answer. urllib3 makes a ConnectTimeoutError of it here."""
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        pools.answer_no_connect(server)
        alarm(TimeoutError("the caller's deadline"), 0.05)
        with pytest.raises(urllib3.exceptions.HTTPError) as raised:
            pool.request("POST", "/", timeout=10)
        assert "the caller's deadline" in " ".join(map(str, links(raised.value)))


WITH_ALL = {"replay": "idempotent", "presend_check": True, "nonidempotent_max_idle_s": 0}


def test_a_tunnel_that_the_application_opens():
    """A fresh socket is opened by its connection's own ``connect()``, through the same tunnel."""
    server, proxy = FaultServer([ECHO, ECHO, Close()], default=ECHO), ConnectProxy()
    with shim(**WITH_ALL), server, proxy, pools.pool_for(proxy) as pool:
        conn = pool._get_conn()
        conn.set_tunnel(server.host, server.port)
        conn.connect()
        pool._put_conn(conn)
        replay_tools.prime(pool)
        assert send(server, pool, "POST")[:2] == (200, True)  # moves: asked to at once
        assert send(server, pool, "PUT")[:4] == (200, True, None, 2)  # its connection ends
        assert len(proxy.tunnels) == 3
        assert stalepool.snapshot()["fallbacks"] == {}
