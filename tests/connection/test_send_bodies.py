"""Bodies are the caller's: they are read as without the shim, and once."""

from __future__ import annotations

import http.client
import io
import socket
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from oracle import describe_error
from pools import in_stock
from replay_tools import asked, outcome, reused
from stalepool_testing import AnswerStep, Exchange, ProcessThenClose, Respond

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
    """The very object. urllib3 reads on after some of them: then the answer's side must not send
    half a body.
    """

    def send() -> Tuple[Any, int]:
        error, step = RAISED[name](), CloseOnHalf() if is_dead else Respond()
        with reused(step, timeout=3.0 if is_dead else 0.3) as (server, pool):
            body = kind(error, server.wait_ended if is_dead else lambda: None)
            try:
                seen: Any = pool.request("PUT", "/wanted", body=body, headers=SIX_BYTES).status
            except BaseException as caught:
                seen = describe_error(caught), caught is error
            return seen, asked(server)

    seen, times = send()
    assert seen == in_stock(send)[0]
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

    def send(method: str, *steps: Any) -> List[str]:
        body = kind(b"put")
        with reused(*steps) as (server, pool):
            assert outcome(pool, method, body=body, headers={"Content-Length": "3"}) == 200
            sent = [entry.body for entry in server.journal if entry.path == "/wanted"]
            assert sent == [b"put"] * (1 + len(steps))
            return body.calls

    expected = in_stock(send, "PUT")
    assert send("PUT") == send("POST") == send("PUT", ProcessThenClose()) == expected


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
