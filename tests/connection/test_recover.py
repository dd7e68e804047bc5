"""The wait for an answer that does not come, and what ends it."""

import importlib
import signal
import socket
import struct
import threading
import time

import pytest

import lanes
from delayed_answers import AnswerLater, nothing_is_acknowledged, sent_twice
from errors import links
from freed import is_freed, is_freed_under_eventlet
from pools import answer_no_connect, counters, pooled_connection, shim, stock
from replay_tools import ECHO, NO_ANSWER, Late, asked, outcome, reused, side_by_side
from stalepool_testing import Close, HalfStatusLine, Reset, Respond, Silence, kernel


def test_a_receive_timeout_of_the_kernels_ends_the_request():
    """Stock: the read seems to have found the end. Nothing has ended, so nothing is replayed."""
    options = [(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 300_000))]
    ends = []
    for who in (stock(), *(shim(replay="idempotent", silence_s=each) for each in ("off", 1))):
        with who, reused(Silence(), timeout=None, socket_options=options) as (server, pool):
            ends.append((outcome(pool, "GET"), asked(server)))
    assert ends == [(NO_ANSWER, 1)] * 3


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


def answered_beside_a_silent_peer():
    with shim(replay="idempotent", silence_s=1), reused(Silence()) as (server, pool):
        with nothing_is_acknowledged():
            assert outcome(pool, "GET") == 200
        assert [entry.connection for entry in server.journal] == [0, 0, 1]


def answered_after_the_first_wait():
    with shim(replay="idempotent", silence_s=1), reused(Respond(delay_s=1)) as (_, pool):
        assert outcome(pool, "GET") == 200


@pytest.mark.parametrize("scene", [answered_after_the_first_wait, answered_beside_a_silent_peer])
def test_the_end_of_a_wait_leaves_nothing_in_memory(call_python, scene):
    assert is_freed_under_eventlet(call_python, scene)


@pytest.mark.parametrize(
    ("method", "delay_s"), [("POST", 0), ("GET", 1.2)], ids=["at once", "watched"]
)
def test_an_error_that_reaches_the_caller_leaves_nothing_in_memory(method, delay_s):
    """Of a connection that is asked without its pool: that has it in a frame of its own."""

    def failed():
        answers = reused(Late(Reset(), delay_s))
        with shim(replay="idempotent", silence_s=1, replay_within_s=1), answers as (_, pool):
            conn = pool._get_conn()
            conn.request(method, "/")
            with pytest.raises(ConnectionResetError):
                conn.getresponse()
            conn.close()

    assert is_freed(failed)


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


@pytest.mark.parametrize(
    ("method", "step"),
    [("GET", Respond(delay_s=1)), ("GET", Close()), ("POST", Close())],
    ids=["watched", "a replay", "an end"],
)
def test_an_alarm_that_comes_as_a_file_is_closed_is_not_lost(alarm, monkeypatch, method, step):
    """The interpreter would lose it, as all that is raised while it frees an object."""
    close = socket.SocketIO.close

    def interrupted(file):
        monkeypatch.undo()
        close(file)
        signal.raise_signal(signal.SIGALRM)

    with shim(replay="idempotent", silence_s=1), reused(step) as (_, pool):
        alarm(KeyboardInterrupt(), 60)
        monkeypatch.setattr(socket.SocketIO, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.request(method, "/wanted")


def end_green_callers(world):
    """By what their library raises in them, and by an ``Exception`` of a timer's."""
    from greenlet import GreenletExit

    green = importlib.import_module(world)

    def ask(pool, came):
        try:
            pool.request("GET", "/")
        except BaseException as error:
            came += links(error)

    for error in (green.Timeout(), GreenletExit(), Deadline(), TimeoutError("mine")):
        for steps in ([Silence()], [Close(), Silence()]):  # in the first try, and in the second
            with shim(replay="idempotent"), reused(*steps) as (server, pool):
                came = []
                thread = green.spawn(ask, pool, came)
                server.wait_request(1 + len(steps))
                thread.kill(error)
                (thread.wait if world == "eventlet" else thread.join)()
                assert error is came[0] or (type(error) is TimeoutError and error in came), came
                assert server.journal.count(path="/") == len(steps)
                counted = counters(server)
                replays = {} if len(steps) == 1 else {"failed": 1}
                assert (counted["replays"], counted["replays_refused"]) == (replays, {})

    # while a fresh socket is opened; urllib3 makes an error of its own of some
    late = type("Late", (OSError,), {})("mine")
    for error in (ValueError("mine"), late, socket.timeout("timed out")):
        with shim(replay="idempotent"), reused(Close()) as (server, pool):
            answer_no_connect(server)
            try:
                with green.Timeout(0.5, error):
                    pool.request("GET", "/")
            except Exception as caught:
                assert error in links(caught), links(caught)
    return "done"


@pytest.mark.parametrize("hub", lanes.HUBS)
@pytest.mark.parametrize("world", ["eventlet", "gevent"])
def test_what_ends_a_green_caller_goes_through(call_python, world, hub):
    flags = ["-Wignore::ResourceWarning"]
    assert call_python(end_green_callers, world, world=world, env=hub, flags=flags) == "done"


def once_the_old_answer_is_read(step):
    """What makes the step of a second sending: the first one has been answered by then."""

    def answer(later, conn):
        old = conn.sock
        later.told.set()
        assert later.was_sent.wait(20)
        kernel.wait_until(
            lambda: conn.sock is not old or kernel.unread_bytes(old) == 0,
            "a client that has read it",
        )
        return step

    return answer


@pytest.mark.parametrize("status, headers", [(503, {}), (409, {"Idempotency-Key": "1"})])
@pytest.mark.parametrize(
    "step",
    # with the last one, the second sending waits in a queue, as for its turn
    [ECHO, Close(), Respond(403), HalfStatusLine(), Silence()],
    ids=["200", "FIN", "403", "half a line", "nothing"],
)
def test_a_refusal_on_the_old_one_may_be_due_to_the_second_sending(status, headers, step):
    """So the fresh one is read on; if nothing better comes there, the caller gets the refusal."""
    is_answered, answer = step is ECHO, once_the_old_answer_is_read(step)
    with sent_twice(answer, status, "ok" if is_answered else "failed") as (_, pool, _):
        response = pool.request("POST" if headers else "GET", "/wanted", headers=headers)
        assert response.status == (200 if is_answered else status)
        assert response.stalepool_replayed is is_answered


def test_an_answer_on_the_old_one_that_refuses_nothing_is_not_waited_out():
    with sent_twice(once_the_old_answer_is_read(ECHO), 404) as (_, pool, _):
        assert pool.request("GET", "/wanted").status == 404


def test_the_fresh_one_is_answered_and_the_old_one_is_not():
    with sent_twice(lambda *_: ECHO, outcome="ok") as (_, pool, _):
        assert pool.request("GET", "/wanted").stalepool_replayed


def test_a_late_refusal_of_the_only_sending():
    """It comes after the first wait, in which nothing was sent again."""
    with shim(replay="idempotent", silence_s=1), reused(Respond(503, delay_s=1)) as (server, pool):
        assert outcome(pool, "GET") == 503
        assert asked(server) == 1
