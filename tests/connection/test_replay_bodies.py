"""What a request carries decides whether it can be sent a second time, whole."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional

import pytest
import requests

from pools import counters, pooled_connection, shim, stock
from replay_tools import ECHO, kind_of, reused, send
from stalepool_testing import Close, Exchange, FaultServer, Reset, kernel

WITH_REPLAY = {"replay": "idempotent"}
CONTENT = b"0123456789"


class Body(NamedTuple):
    """``make``: a new one for each request; gets a directory of its own. ``arrives``: what the
    server has to get. ``refused_by``: the rules that refuse a replay, None where there is one.
    """

    make: Callable[[Any], Any]
    arrives: bytes
    refused_by: Optional[str] = None
    headers: Dict[str, str] = {}
    options: Dict[str, Any] = {}


def at(position: int, file: Any) -> Any:
    file.seek(position)
    return file


def a_file(directory: Any) -> Any:
    path = directory / "body"
    path.write_bytes(CONTENT)
    return at(4, path.open("rb"))


def a_pipe(directory: Any) -> Any:
    ear, mouth = os.pipe()
    with open(mouth, "wb") as writer:
        writer.write(CONTENT)
    return open(ear, "rb")


def once(directory: Any) -> Iterator[bytes]:
    yield CONTENT[:5]
    yield CONTENT[5:]


class ReadOnly:
    """A file-like object that can do nothing else."""

    def __init__(self) -> None:
        self._left = [CONTENT]

    def read(self, size: int = -1) -> bytes:
        return self._left.pop() if self._left else b""


class LostItsPlace(io.BytesIO):
    """A seekable body that cannot say where it is, as urllib3 knows them."""

    def tell(self) -> int:
        raise OSError("no idea")


LENGTH = {"Content-Length": "10"}
FROM_4 = {"Content-Length": "6"}
#: with its head more than the megabyte that is recorded
TOO_LARGE = CONTENT * 105_000
#: by the one or the other: whether the connection ends while chunks are sent is chance
CHUNKED = "body or dialogue"

BODIES: Dict[str, Body] = {
    "none": Body(lambda _: None, b""),
    "empty": Body(lambda _: b"", b""),
    "bytes": Body(lambda _: CONTENT, CONTENT),
    "text": Body(lambda _: "0123456789", CONTENT),
    "bytearray": Body(lambda _: bytearray(CONTENT), CONTENT),
    "memoryview": Body(lambda _: memoryview(CONTENT), CONTENT, headers=LENGTH),
    "a megabyte": Body(lambda _: CONTENT * 100_000, CONTENT * 100_000),
    "more than a megabyte": Body(lambda _: TOO_LARGE, TOO_LARGE, "body"),
    "file, from 4": Body(a_file, CONTENT[4:], headers=FROM_4),
    "BytesIO, from 4": Body(lambda _: at(4, io.BytesIO(CONTENT)), CONTENT[4:], headers=FROM_4),
    "BytesIO, from 0": Body(lambda _: io.BytesIO(CONTENT), CONTENT, headers=LENGTH),
    "StringIO": Body(lambda _: io.StringIO("0123456789"), CONTENT, headers=LENGTH),
    "pipe": Body(a_pipe, CONTENT, headers=LENGTH),
    "generator": Body(once, CONTENT, headers=LENGTH),
    "list of bytes": Body(lambda _: [CONTENT], CONTENT, headers=LENGTH),
    "read and nothing else": Body(lambda _: ReadOnly(), CONTENT, headers=LENGTH),
    "lost its place": Body(lambda _: LostItsPlace(CONTENT), CONTENT, headers=LENGTH),
    "file without a length": Body(a_file, CONTENT[4:], CHUNKED),
    "generator without a length": Body(once, CONTENT, CHUNKED),
    "chunked": Body(lambda _: CONTENT, CONTENT, CHUNKED, options={"chunked": True}),
    "Expect": Body(lambda _: CONTENT, CONTENT, "dialogue", {"Expect": "100-continue"}),
    "Upgrade": Body(lambda _: CONTENT, CONTENT, "dialogue", {"Upgrade": "h2c"}),
}


@dataclass(frozen=True)
class ResetWhenTold(Reset):
    """An RST when the client says so."""

    told: threading.Event = field(default_factory=threading.Event)

    def answer(self, exchange: Exchange) -> None:
        assert self.told.wait(10)
        super().answer(exchange)


@pytest.fixture
def make_body(tmp_path):
    """Makes a body; closes it in the end if it is a file."""
    made = []

    def make(body: Body) -> Any:
        made.append(body.make(tmp_path))
        return made[-1]

    yield make
    for body in made:
        getattr(body, "close", str)()


@pytest.mark.parametrize("name", BODIES)
def test_bodies(name, make_body):
    body = BODIES[name]
    options = {"headers": dict(body.headers), **body.options}
    with shim(**WITH_REPLAY), reused(Close()) as (server, pool):
        outcome = send(server, pool, "PUT", body=make_body(body), **options)
        if body.refused_by is None:
            assert outcome[:2] == (200, True), outcome
            assert (outcome.arrivals, outcome.processed) == (2, 1)
            assert server.journal[-1].body == body.arrives
            assert counters(server)["replays"] == {"ok": 1}
        else:
            assert kind_of(outcome.error) == "connection"
            assert outcome.arrivals == 1
            ((refusal, count),) = counters(server)["replays_refused"].items()
            assert refusal in body.refused_by.split(" or ")
            assert count == 1


@pytest.mark.parametrize("name", BODIES)
def test_stock_fails_on_each(name, make_body):
    body = BODIES[name]
    with stock(), reused(Close()) as (server, pool):
        options = {"headers": dict(body.headers), **body.options}
        outcome = send(server, pool, "PUT", body=make_body(body), **options)
        assert kind_of(outcome.error) == "connection"
        assert outcome.arrivals == 1


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("who", [stock, lambda: shim(**WITH_REPLAY)], ids=["stock", "shim"])
def test_each_arrives_on_a_reused_connection_that_lives(name, who, make_body):
    body = BODIES[name]
    with who(), reused() as (server, pool):
        options = {"headers": dict(body.headers), **body.options}
        outcome = send(server, pool, "PUT", body=make_body(body), **options)
        assert outcome[:2] == (200, True), outcome
        assert (outcome.arrivals, outcome.processed) == (1, 1)
        assert server.journal[-1].body == body.arrives
        assert len(server.journal.connections) == 1


@pytest.mark.parametrize("is_saved", [True, False])
def test_a_body_of_which_a_part_is_out(is_saved):
    """Up to a megabyte is recorded and goes out again; what is read later just follows."""
    parts = [CONTENT, CONTENT, TOO_LARGE] if is_saved else [TOO_LARGE, CONTENT]

    step = ResetWhenTold()

    def body() -> Iterator[bytes]:
        if not is_saved:
            step.told.set()  # nobody reads: it might wait in sending
        yield parts[0]
        step.told.set()
        kernel.wait_readable(sock, events=kernel.POLLRDHUP)
        yield from parts[1:]

    headers = {"Content-Length": str(len(b"".join(parts)))}
    with shim(**WITH_REPLAY), reused(step) as (server, pool):
        sock = pooled_connection(pool).sock
        outcome = send(server, pool, "PUT", body=body(), headers=headers)
        if is_saved:
            assert outcome[:2] == (200, True), outcome
            assert (outcome.arrivals, outcome.processed) == (2, 1)
            assert server.journal[-1].body == b"".join(parts)
        else:
            assert kind_of(outcome.error) == "connection"
            assert outcome.arrivals == 1
            assert counters(server)["replays_refused"] == {"body": 1}


def test_a_file_that_requests_sends(tmp_path):
    """requests measures what is left of it, and gives it a length."""
    path = tmp_path / "body"
    path.write_bytes(CONTENT)
    for who, saved in ((stock, False), (lambda: shim(**WITH_REPLAY), True)):
        with who(), FaultServer(
            [ECHO, Reset()], default=ECHO
        ) as server, requests.Session() as session, path.open("rb") as file:
            session.get(server.url, timeout=10)
            file.seek(4)
            if not saved:
                with pytest.raises(requests.ConnectionError):
                    session.put(server.url, data=file, timeout=10)
                continue
            assert session.put(server.url, data=file, timeout=10).status_code == 200
            assert server.journal[-1].body == CONTENT[4:]


PRECONDITIONS = {
    "If-Match": '"x"',
    "if-none-match": '"x"',
    "IF-UNMODIFIED-SINCE": "Thu, 01 Jan 1970 00:00:00 GMT",
    "If": "(<urn:lock>)",
    "Content-Range": "bytes 0-9/20",
}


@pytest.mark.parametrize("header", PRECONDITIONS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_preconditions(method, header):
    """A second try of what changes something would be told 412, or 416, by what the first one did;
    of what only reads it is told what any later one would be.
    """
    headers = {header: PRECONDITIONS[header]}
    with shim(**WITH_REPLAY), reused(Close()) as (server, pool):
        outcome = send(server, pool, method, headers=headers)
        if method == "GET":
            assert outcome[:2] == (200, True), outcome
        else:
            assert kind_of(outcome.error) == "connection"
            assert outcome.arrivals == 1
            assert counters(server)["replays_refused"] == {"precondition": 1}
    with shim(**WITH_REPLAY), reused(Close()) as (server, pool):
        outcome = send(server, pool, method, headers={**headers, "Idempotency-Key": "k"})
        assert outcome[:2] == (200, True), outcome
    with stock(), reused(Close()) as (server, pool):
        assert kind_of(send(server, pool, method, headers=headers).error) == "connection"


@pytest.mark.parametrize("name", ["idempotency-KEY", "X-Idempotency-Key"])
@pytest.mark.parametrize("setting", ["safe", "idempotent"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_an_idempotency_key(method, setting, name):
    headers = {name: "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    with shim(replay=setting), reused(Reset()) as (server, pool):
        outcome = send(server, pool, method, headers=headers)
        assert outcome[:2] == (200, True), outcome
        assert (outcome.arrivals, outcome.processed) == (2, 1)
    with stock(), reused(Reset()) as (server, pool):
        assert kind_of(send(server, pool, method, headers=headers).error) == "connection"
