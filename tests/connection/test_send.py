"""The bytes of a request go out. Bodies are the caller's: read as without the shim, and once."""

import contextlib
import errno
import http.client
import io
import socket
from dataclasses import dataclass

import pytest
import urllib3

import replay_tools
import stalepool
import stalepool_testing as testing
from oracle import describe_error
from pools import counters, get, in_stock, pooled_connection, serving, shim
from replay_tools import ECHO, asked, have, outcome, reset_after_checkout, reused, send
from stalepool.connection import state
from stalepool_testing import AnswerStep, ProcessThenClose, Respond, kernel


def test_a_send_that_fails_is_made_good():
    """Without the pre-send check the request goes into the dead connection, and out again."""
    with shim(replay="idempotent"), reused() as (server, pool):
        reset_after_checkout(server, pool)
        assert send(server, pool, "PUT") == (200, True, None, 1, 1)
        assert counters(server)["replays"] == {"ok": 1}


def test_a_connection_that_ends_while_a_move_fails(connects):
    """The move takes time, in which a server's idle limit passes."""

    def end_and_fail():
        connects.act = lambda: None
        have(server, testing.CloseAfter(0), kernel.POLLRDHUP)(conn)
        raise OSError(errno.ENETUNREACH, "of the network")

    settings = {"nonidempotent_max_idle_s": 0, "presend_check": True}
    with shim(**settings), reused() as (server, pool):
        conn, connects.act = pooled_connection(pool), end_and_fail
        assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {"failed": 1, "presend_check": 1}


@pytest.mark.parametrize(
    ("settings", "headers", "moved"),
    [
        # another one would not be who this one is
        ({"presend_check": True}, {"Authorization": "NTLM x"}, {}),
        ({"mode": "audit", "nonidempotent_max_idle_s": 0}, {}, {"idle_setting": 1}),
    ],
    ids=["it carries an identity", "audit"],
)
def test_a_readable_connection_that_is_not_left(settings, headers, moved):
    with shim(**settings), serving(default=ECHO) as (server, pool):
        assert get(pool, headers=headers) == 200
        sock = pooled_connection(pool).sock
        replay_tools.after_checkout(pool, have(server, testing.Surplus(200, seconds=0)))
        pool.request("POST", "/")
        assert counters(server)["moved"] == moved
        assert pooled_connection(pool).sock is sock


# -- by hand, and by other classes -----------------------------------------------------------------


def test_a_connection_that_has_no_socket_is_not_looked_after(monkeypatch):
    """As of what records and plays HTTP back."""
    kept = []
    monkeypatch.setattr("http.client.HTTPConnection.send", lambda conn, data: kept.append(data))
    with shim():
        urllib3.connection.HTTPConnection("127.0.0.1", 1).request("GET", "/")
        assert kept[0].startswith(b"GET / HTTP/1.1")


PAY = b"POST /pay HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


def test_a_second_request_is_not_taken_for_the_firsts_body():
    """A class that is not ours has read the answer to the first, in the same checkout. It was a
    GET: the POST after it would be replayed. Its head need not end what is sent (botocore).
    """
    with shim(replay="idempotent"), reused() as (server, pool):
        with contextlib.closing(pool._get_conn()) as conn:
            conn.response_class = http.client.HTTPResponse
            conn.request("GET", "/")
            http.client.HTTPConnection.getresponse(conn).read()
            have(server, testing.ResetAfter(), kernel.POLLRDHUP)(conn)
            with pytest.raises(ConnectionError):
                conn.send(PAY)
        assert len(server.journal.connections) == 1


def test_a_piece_of_a_body_may_look_like_a_request():
    """Its answer says as much of the connection as any."""
    body = iter([b"log: ", PAY])
    with shim(), serving(default=Respond(headers={"Keep-Alive": "timeout=9"})) as (_, pool):
        pool.request("PUT", "/", body=body, headers={"Content-Length": str(5 + len(PAY))})
        assert state.find(pooled_connection(pool).sock).idle_limit_s == 9


def test_a_piece_of_a_body_after_an_install_is_no_request():
    """urllib3 sends the rest of the body, and reads the answer, alone."""
    requests = []

    def body():
        yield b"log: "
        stalepool.uninstall()
        stalepool.install(replay="idempotent")
        yield PAY
        requests.append(state.find(sock).request)

    with shim(replay="idempotent"), reused() as (_, pool):
        sock = pooled_connection(pool).sock
        pool.request("PUT", "/", body=body(), headers={"Content-Length": str(5 + len(PAY))})
        assert get(pool) == 200
    assert requests == [None]


def test_what_is_written_by_hand_may_be_a_file():
    """And after an uninstall, by a method that was kept."""
    with shim(), serving() as (server, pool), contextlib.closing(pool._get_conn()) as conn:
        send = conn.send
        for number in (1, 2):
            send(io.BytesIO(PAY))
            server.wait_request(number)
            stalepool.uninstall()
            conn.close()


# -- bodies ----------------------------------------------------------------------------------------


class Frozen(OSError):
    """Nothing can be assigned to it."""

    def __setattr__(self, name, value):
        raise AttributeError("frozen")


RAISED = {
    "frozen": Frozen,
    "ValueError": lambda: ValueError("no"),
    "a reset of where it comes from": lambda: ConnectionResetError(104, "reset"),
    "a pipe it comes from": lambda: BrokenPipeError(32, "broken"),
    "a timeout of where it comes from": lambda: socket.timeout("timed out"),
    "http.client's": lambda: http.client.RemoteDisconnected("gone"),
    "no Exception": lambda: KeyboardInterrupt(),
}


@dataclass(frozen=True)
class CloseOnHalf(AnswerStep):
    """Waits for the first half of the body, and closes: the rest never comes."""

    keeps_connection = False

    def answer(self, exchange):
        while b"put" not in exchange.channel._buffer:
            exchange.channel._receive(5.0)
        exchange.channel.throw_away()
        exchange.channel.close()


@pytest.mark.each_value
@pytest.mark.usefixtures("defaults")
@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("is_dead", [False, True], ids=["living", "dead"])
def test_what_reading_a_body_raises_is_the_callers(name, is_dead):
    """The very object. urllib3 reads on after some: then the answer's side sends no half of it."""

    def body(error, wait):
        yield b"put"
        wait()
        raise error

    def run():
        error, step = RAISED[name](), CloseOnHalf() if is_dead else testing.Respond()
        with reused(step, timeout=3.0 if is_dead else 0.3) as (server, pool):
            half = body(error, server.wait_ended if is_dead else lambda: None)
            try:
                options = {"body": half, "headers": {"Content-Length": "6"}}
                seen = pool.request("PUT", "/wanted", **options).status
            except BaseException as caught:
                seen = describe_error(caught), caught is error
            return seen, asked(server)

    seen, times = run()
    assert seen == in_stock(run)[0]
    assert times <= 1


@pytest.mark.usefixtures("defaults")
@pytest.mark.parametrize("view", [lambda buffer: buffer, memoryview], ids=["itself", "a view"])
def test_a_buffer_that_changes_meanwhile_is_sent_again_as_it_was(view):
    def body():
        buffer = bytearray(b"one")
        yield view(buffer)
        buffer[:] = b"two"
        yield b"!"

    with reused(ProcessThenClose()) as (server, pool):
        assert outcome(pool, "PUT", body=body(), headers={"Content-Length": "4"}) == 200
        sent = [entry.body for entry in server.journal if entry.path == "/wanted"]
        assert sent == [b"one!", b"one!"]
