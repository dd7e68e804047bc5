"""Bodies are the caller's: they are read as without the shim, and once."""

from __future__ import annotations

import codecs
import http.client
import io
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from oracle import describe_error
from pools import end_while_idle, in_stock
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


class Spy(io.BytesIO):
    """A file that writes down what it is asked."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.calls: List[str] = []

    def read(self, size: Any = -1) -> bytes:
        self.calls.append("read")
        return super().read(size)

    def seek(self, *arguments: Any) -> int:
        self.calls.append("seek")
        return super().seek(*arguments)

    def tell(self) -> int:
        self.calls.append("tell")
        return super().tell()


class Unseekable(Spy):
    def seek(self, *arguments: Any) -> int:
        raise RuntimeError("a pipe")


class Untold(Spy):
    def tell(self) -> int:
        raise OSError("a pipe")


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


def _nothing() -> None:
    pass


class Failing:
    """A file whose second ``read()`` raises."""

    def __init__(self, error: BaseException, wait: Callable[[], Any] = _nothing) -> None:
        self._error, self._wait = error, wait
        self._reads = 0

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > 1:
            self._wait()
            raise self._error
        return b"put"


def _generator(error: BaseException, wait: Callable[[], Any] = _nothing) -> Iterator[bytes]:
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
@pytest.mark.parametrize("kind", [Failing, _generator])
@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("is_dead", [False, True], ids=["living", "dead"])
def test_what_reading_a_body_raises_is_the_callers(name: str, kind: Any, is_dead: bool) -> None:
    """urllib3 reads on after some of them: then the answer's side must not send half a body."""

    def send() -> Tuple[Any, int]:
        error, step = RAISED[name](), CloseOnHalf() if is_dead else Respond()
        with reused(step, timeout=3.0 if is_dead else 0.3) as (server, pool):
            body = kind(error, server.wait_ended if is_dead else _nothing)
            try:
                seen: Any = pool.request("PUT", "/wanted", body=body, headers=SIX_BYTES).status
            except BaseException as caught:
                seen = describe_error(caught)
            return seen, asked(server)

    seen, times = send()
    assert seen == in_stock(send)[0]
    assert times <= 1


def test_an_exception_out_of_a_body_is_the_very_object() -> None:
    for make in (Frozen, KeyboardInterrupt):
        error = make()
        with reused() as (_, pool):
            with pytest.raises(make) as caught:
                pool.request("PUT", "/wanted", body=Failing(error), headers=SIX_BYTES)
        assert caught.value is error


@pytest.mark.parametrize("kind", [Spy, Unseekable, Untold])
def test_a_body_is_asked_what_stock_asks_it(kind: Any) -> None:
    """For a replay, too: what went out is what is sent again."""

    def send(method: str, *steps: Any) -> List[str]:
        body = kind(b"put")
        with reused(*steps) as (server, pool):
            assert outcome(pool, method, body=body, headers={"Content-Length": "3"}) == 200
            sent = [entry.body for entry in server.journal if entry.path == "/wanted"]
            assert sent == [b"put"] * (1 + len(steps))
            return body.calls

    expected = in_stock(send, "PUT")
    assert send("PUT") == send("POST") == send("PUT", ProcessThenClose()) == expected


@pytest.mark.parametrize("is_dead", [False, True], ids=["living", "dead"])
def test_what_a_reader_has_read_ahead_arrives(tmp_path: Path, is_dead: bool) -> None:
    """``seek(tell())`` would lose it, without an error."""
    path = tmp_path / "notes"
    path.write_bytes(b"x" * 59 + b"\n" + b"y" * 10_000)

    def send(*steps: Any) -> Tuple[Any, List[int]]:
        with codecs.getreader("utf-8")(open(path, "rb")) as body:
            assert len(body.readline()) == 60
            with reused(*steps) as (server, pool):
                seen = outcome(pool, "PUT", body=body, headers={"Content-Length": "10000"})
                return seen, [len(e.body) for e in server.journal if e.path == "/wanted"]

    seen, sizes = send(*[ProcessThenClose()] * is_dead)
    assert seen == in_stock(send)[0]  # urllib3 1.26 does not take text from such a file
    assert seen != 200 or sizes == [10_000] * (1 + is_dead)


def test_a_generator_is_consumed_once() -> None:
    """Its connection was found dead before a byte went out; or it died, and nothing is left."""
    for is_idle in (True, False):
        taken: List[int] = []

        def parts(taken: List[int] = taken) -> Iterator[bytes]:
            for part in (b"p", b"u", b"t"):
                taken.append(1)
                yield part

        with reused(*[ProcessThenClose()] * (not is_idle)) as (server, pool):
            if is_idle:
                end_while_idle(server, pool)
            seen = outcome(pool, "PUT", body=parts())
            assert (seen == 200) is is_idle, seen
            assert len(taken) == 3
            assert [e.body for e in server.journal if e.path == "/wanted"] == [b"put"]


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
