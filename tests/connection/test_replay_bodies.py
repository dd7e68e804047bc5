"""What a request carries decides whether it can be sent a second time, whole."""

from __future__ import annotations

import array
import contextlib
import io
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional

import pytest
import urllib3

from pools import counters, shim
from replay_tools import ECHO, Outcome, kind_of, reused, send
from stalepool_testing import Close

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


def a_file(directory: Any) -> Any:
    path = directory / "body"
    path.write_bytes(CONTENT)
    file = path.open("rb")
    file.seek(4)
    return file


def once(directory: Any) -> Iterator[bytes]:
    yield CONTENT[:5]
    yield CONTENT[5:]


def as_it_is_sent(text: str) -> bytes:
    """A text file's content as this urllib3 encodes it; 1.26 leaves that to http.client."""
    to_chunks = getattr(urllib3.util.request, "body_to_chunks", None)
    if to_chunks is None:
        return text.encode("latin-1")
    return b"".join(to_chunks(io.StringIO(text), "PUT", 16384).chunks)


UMLAUTS = "\u00fc" * 1000
LENGTH = {"Content-Length": "10"}
FROM_4 = {"Content-Length": "6"}
#: with its head more than the megabyte that is recorded
TOO_LARGE = CONTENT * 105_000
#: by the one or the other: whether the connection ends while chunks are sent is chance
CHUNKED = "body or dialogue"

NUMBERS = array.array("I", range(1000))

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
    "generator": Body(once, CONTENT, headers=LENGTH),
    "file without a length": Body(a_file, CONTENT[4:], CHUNKED),
    "array": Body(lambda _: NUMBERS, NUMBERS.tobytes(), CHUNKED),
    "view of an array": Body(lambda _: memoryview(NUMBERS), NUMBERS.tobytes()),
    "text file": Body(lambda _: io.StringIO(UMLAUTS), as_it_is_sent(UMLAUTS), CHUNKED),
    "list": Body(lambda _: [b"a", b"b"], b"ab", CHUNKED),
    "chunked": Body(lambda _: CONTENT, CONTENT, CHUNKED, options={"chunked": True}),
    "Expect": Body(lambda _: CONTENT, CONTENT, "dialogue", {"Expect": "100-continue"}),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(name, tmp_path):
    """Each arrives on a connection that lives; on one that ends it is sent again, if it may be."""
    body = BODIES[name]
    with shim(**WITH_REPLAY), reused(ECHO, Close()) as (server, pool):

        def put() -> Outcome:
            made = body.make(tmp_path)
            with contextlib.closing(made) if hasattr(made, "close") else contextlib.nullcontext():
                return send(server, pool, "PUT", body=made, headers=body.headers, **body.options)

        assert put() == (200, True, None, 1, 1)
        assert server.journal[-1].body == body.arrives
        outcome = put()
        assert [entry.connection for entry in server.journal][:3] == [0, 0, 0]
        if body.refused_by is None:
            assert outcome == (200, True, None, 2, 1)
            assert server.journal[-1].body == body.arrives
            assert counters(server)["replays"] == {"ok": 1}
        else:
            assert kind_of(outcome.error) == "connection"
            assert outcome.arrivals == 1
            ((refusal, count),) = counters(server)["replays_refused"].items()
            assert refusal in body.refused_by.split(" or ")
            assert count == 1
