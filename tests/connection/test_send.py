"""The bytes of a request go out. Bodies are the caller's: read as without the shim, and once."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
import urllib3
from urllib3.exceptions import HTTPError

import pools
import stalepool
import stalepool_testing as testing
from oracle import ENDS, describe_error
from pools import counters, get, in_stock, pooled_connection, serving, shim, stock
from replay_tools import ECHO, after_checkout, asked, have, outcome, reused, send
from stalepool_testing import AnswerStep, Exchange, ProcessThenClose, ProcessThenReset, kernel


def test_uninstalled_it_passes_through(monkeypatch: Any) -> None:
    """Under somebody else's wrapper, which keeps the patch in its place."""
    owner = urllib3.connection.HTTPConnection
    with stock():
        stalepool.install()
        theirs = functools.wraps(owner.send)(lambda conn, data: theirs.__wrapped__(conn, data))
        monkeypatch.setattr(owner, "send", theirs)
        assert len(stalepool.uninstall()) == 1
        pools.forget_what_was_counted()
        with serving() as (_, pool):
            assert [get(pool), get(pool)] == [200, 200]
            seen = stalepool.snapshot()
        assert seen["fallbacks"] == {} and seen["origins"] == {}
        monkeypatch.undo()


def test_a_connection_that_was_replaced_meanwhile():
    """What is remembered is of a socket, and says nothing of another one."""

    def replace(conn: Any) -> None:
        old, conn.sock = conn.sock, None
        conn.connect()
        old.close()

    with shim(presend_check=True), reused() as (server, pool):
        after_checkout(pool, replace)
        assert send(server, pool, "POST")[:3] == (200, True, None)
        assert len(server.journal.connections) == 2
        assert counters(server)["moved"] == {}


@pytest.mark.each_value
@pytest.mark.parametrize("version", [None, "TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("name", ["FIN", "FIN without close_notify", "RST", "half-closed"])
def test_replay_alone_would_do_for_some(name, version):
    """Without the pre-send check the request goes into the dead connection, and out again."""
    with shim(replay="idempotent"), reused(tls=version) as (server, pool):
        after_checkout(pool, have(server, ENDS[name], kernel.POLLRDHUP))
        assert send(server, pool, "PUT") == (200, True, None, 1, 1)
        assert counters(server)["replays"] == {"ok": 1}


def test_without_the_presend_check():
    """What lies there is taken for the answer, as in stock."""
    with shim(presend_check=False), reused() as (server, pool):
        after_checkout(pool, have(server, ENDS["answer nobody asked for"]))
        outcome = send(server, pool, "GET")
        assert (outcome.status, outcome.is_own_answer) == (200, False)


class SignsIn(urllib3.connection.HTTPConnection):
    """Asks for a nonce before each request. Its answers are read by a class that is not ours."""

    response_class = http.client.HTTPResponse

    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request("GET", "/nonce")
        self.getresponse().read()
        super().request(*args, **kwargs)


def test_a_second_request_in_one_checkout_is_not_taken_for_the_firsts_body() -> None:
    """The first was a GET: the POST after it would be replayed."""

    def body() -> Iterator[bytes]:
        yield b"a" * 1000
        server.wait_request(4)  # the head of the POST has been read
        with server.add(testing.ResetAtNextByte()):
            yield b"b" * 1000
            kernel.wait_readable(conn.sock)
        yield b"c" * 1000

    with shim(replay="idempotent"), reused(connection_class=SignsIn) as (server, pool):
        conn = pooled_connection(pool)
        with pytest.raises(HTTPError):
            pool.request("POST", "/", body=body(), headers={"Content-Length": "3000"})
        assert server.journal.count(method="POST") == 1


def test_a_second_request_in_one_piece_is_not_taken_for_the_firsts_body() -> None:
    """As botocore's connection sends them: the head does not end what is sent."""
    with shim(replay="idempotent"), reused(default=ECHO) as (server, pool):
        with contextlib.closing(pool._get_conn()) as conn:
            conn.response_class = http.client.HTTPResponse
            conn.request("GET", "/")
            http.client.HTTPConnection.getresponse(conn).read()
            have(server, testing.ResetAfter(), kernel.POLLRDHUP)(conn)
            with pytest.raises(ConnectionError):
                conn.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        assert len(server.journal.connections) == 1


def test_a_connection_that_has_no_socket_is_not_looked_after(monkeypatch: Any) -> None:
    """As of what records and plays HTTP back."""
    kept: List[bytes] = []
    monkeypatch.setattr("http.client.HTTPConnection.send", lambda conn, data: kept.append(data))
    with shim():
        urllib3.connection.HTTPConnection("127.0.0.1", 1).request("GET", "/")
        assert kept[0].startswith(b"GET / HTTP/1.1")
        assert stalepool.snapshot()["fallbacks"] == {}


def test_a_readable_connection_that_carries_an_identity_is_not_left() -> None:
    """Another one would not be who this one is."""
    with shim(presend_check=True), serving(default=ECHO) as (server, pool):
        assert get(pool, headers={"Authorization": "NTLM x"}) == 200
        sock = pooled_connection(pool).sock
        after_checkout(pool, have(server, testing.Surplus(200, seconds=0)))
        pool.request("POST", "/")
        assert counters(server)["moved"] == {}
        assert pooled_connection(pool).sock is sock


def test_what_is_written_by_hand_has_a_method_of_its_own() -> None:
    """The last request by urllib3 was a GET; this one must reach the server once, as in stock."""
    with shim(replay="idempotent"), reused(ProcessThenReset()) as (server, pool):
        conn = pool._get_conn()
        conn.send(b"POST /pay HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        response = conn.response_class(conn.sock, method="POST")
        with pytest.raises(ConnectionError):
            response.begin()
        conn.close()
        assert server.journal.count(path="/pay") == 1


SIX_BYTES = {"Content-Length": "6"}


class Frozen(Exception):
    """Nothing can be assigned to it, not even the traceback's note."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")


class FrozenOSError(OSError):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")


RAISED: Dict[str, Callable[[], BaseException]] = {
    "frozen": Frozen,
    "a frozen OSError": FrozenOSError,
    "ValueError": lambda: ValueError("no"),
    "a reset of where it comes from": lambda: ConnectionResetError(104, "reset"),
    "a pipe it comes from": lambda: BrokenPipeError(32, "broken"),
    "a timeout of where it comes from": lambda: socket.timeout("timed out"),
    "http.client's": lambda: http.client.RemoteDisconnected("gone"),
    "no Exception": lambda: KeyboardInterrupt(),
}


class Failing:
    """A file whose second ``read()`` raises."""

    def __init__(self, error: BaseException, wait: Callable[[], Any]) -> None:
        self._parts = failing(error, wait)

    def read(self, size: int = -1) -> bytes:
        return next(self._parts)


def failing(error: BaseException, wait: Callable[[], Any]) -> Iterator[bytes]:
    yield b"put"
    wait()
    raise error


@dataclass(frozen=True)
class CloseOnHalf(AnswerStep):
    """Waits for the first half of the body, and closes: the rest never comes."""

    keeps_connection = False

    def answer(self, exchange: Exchange) -> None:
        while b"put" not in exchange.channel._buffer:
            exchange.channel._receive(5.0)
        exchange.channel.throw_away()
        exchange.channel.close()


@pytest.mark.each_value
@pytest.mark.parametrize("kind", [Failing, failing])
@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("is_dead", [False, True], ids=["living", "dead"])
def test_what_reading_a_body_raises_is_the_callers(name: str, kind: Any, is_dead: bool) -> None:
    """The very object. urllib3 reads on after some: then the answer's side sends no half of it."""

    def run() -> Tuple[Any, int]:
        error, step = RAISED[name](), CloseOnHalf() if is_dead else testing.Respond()
        with reused(step, timeout=3.0 if is_dead else 0.3) as (server, pool):
            body = kind(error, server.wait_ended if is_dead else lambda: None)
            try:
                seen: Any = pool.request("PUT", "/wanted", body=body, headers=SIX_BYTES).status
            except BaseException as caught:
                seen = describe_error(caught), caught is error
            return seen, asked(server)

    seen, times = run()
    assert seen == in_stock(run)[0]
    assert times <= 1


class Spy(io.BytesIO):
    """A file that writes down what it is asked."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.calls: List[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("read", "seek", "tell"):
            self.calls.append(name)
        return super().__getattribute__(name)


class Pipe(Spy):
    """One that has no place."""

    def seek(self, *arguments: Any) -> int:
        raise OSError("a pipe")

    tell = seek


@pytest.mark.parametrize("kind", [Spy, Pipe])
def test_a_body_is_asked_what_stock_asks_it(kind: Any) -> None:
    """For a replay, too: what went out is what is sent again.

    ``seek(tell())`` would lose what a reader has read ahead, without an error.
    """

    def run(method: str, *steps: Any) -> List[str]:
        body = kind(b"put")
        with reused(*steps) as (server, pool):
            assert outcome(pool, method, body=body, headers={"Content-Length": "3"}) == 200
            sent = [entry.body for entry in server.journal if entry.path == "/wanted"]
            assert sent == [b"put"] * (1 + len(steps))
            return body.calls

    expected = in_stock(run, "PUT")
    assert run("PUT") == run("POST") == run("PUT", ProcessThenClose()) == expected


@dataclass(frozen=True)
class MutateThenClose(AnswerStep):
    """Reads the request, changes the caller's buffer, and closes without an answer."""

    buffer: Any
    keeps_connection = False

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        self.buffer[:] = b"two"
        exchange.channel.close()


def test_a_buffer_that_changes_meanwhile_is_sent_again_as_it_was() -> None:
    buffer = bytearray(b"one")
    for body in (buffer, memoryview(buffer)):
        buffer[:] = b"one"
        with reused(MutateThenClose(buffer)) as (server, pool):
            assert outcome(pool, "PUT", body=body) == 200
            sent = [entry.body for entry in server.journal if entry.path == "/wanted"]
            assert sent == [b"one", b"one"]


def test_what_is_written_by_hand_may_be_a_file() -> None:
    with shim(), serving() as (server, pool):
        with contextlib.closing(pool._get_conn()) as conn:
            conn.send(io.BytesIO(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
            server.wait_request()
        assert stalepool.snapshot()["fallbacks"] == {}
