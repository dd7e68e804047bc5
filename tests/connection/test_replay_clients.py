"""Whatever client is on top, and however it counts its own retries: it sees one attempt."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple

import pytest
import requests
import urllib3
from keystoneauth1.session import Session
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from pools import counters, shim, stock
from replay_tools import BODIES, ECHO, METHODS
from stalepool_testing import (
    Close,
    FaultServer,
    HalfStatusLine,
    ProcessThenClose,
    ProcessThenReset,
    Reset,
)

WITH_REPLAY = {"replay": "idempotent"}


class Seen(NamedTuple):
    """One call of a client: its status, 0 for an error; how many retries of its own it counted."""

    status: int
    retries: int


class Client(NamedTuple):
    """``make``: returns what sends one request to a URL. ``retries``: how often it tries again."""

    make: Callable[[], Callable[[str, str], Seen]]
    retries: int


def with_urllib3(retries: Any) -> Callable[[], Callable[[str, str], Seen]]:
    def make() -> Callable[[str, str], Seen]:
        manager = urllib3.PoolManager(retries=retries, timeout=10.0)

        def call(method: str, url: str) -> Seen:
            try:
                answer = manager.request(method, url, body=BODIES.get(method))
            except urllib3.exceptions.HTTPError:
                return Seen(0, 0)
            return Seen(answer.status, len(answer.retries.history) if answer.retries else 0)

        call.close = manager.clear  # type: ignore[attr-defined]
        return call

    return make


def with_requests(retries: Any) -> Callable[[], Callable[[str, str], Seen]]:
    def make() -> Callable[[str, str], Seen]:
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=retries))

        def call(method: str, url: str) -> Seen:
            try:
                answer = session.request(method, url, data=BODIES.get(method), timeout=10)
            except requests.ConnectionError:
                return Seen(0, 0)
            return Seen(answer.status_code, len(answer.raw.retries.history))

        call.close = session.close  # type: ignore[attr-defined]
        return call

    return make


def with_keystoneauth1(retries: int) -> Callable[[], Callable[[str, str], Seen]]:
    def make() -> Callable[[str, str], Seen]:
        own = requests.Session()
        session = Session(session=own)
        pauses: List[float] = []

        def call(method: str, url: str) -> Seen:
            try:
                answer = session.request(
                    url,
                    method,
                    data=BODIES.get(method),
                    connect_retries=retries,
                    connect_retry_delay=0.001,
                    raise_exc=False,
                    logger=Counting(pauses),
                )
            except Exception as error:
                assert "ConnectFailure" in [cls.__name__ for cls in type(error).__mro__], error
                return Seen(0, len(pauses))
            return Seen(answer.status_code, len(pauses))

        call.close = own.close  # type: ignore[attr-defined]
        return call

    return make


class Counting:
    """In place of keystoneauth1's logger: counts the lines that announce a retry."""

    def __init__(self, retries: List[float]) -> None:
        self._retries = retries

    def warning(self, message: str, *args: Any) -> None:
        if "Retrying" in message:
            self._retries.append(1.0)

    info = warning

    def debug(self, *args: Any, **kwargs: Any) -> None:
        pass

    def isEnabledFor(self, level: int) -> bool:
        return False


CLIENTS: Dict[str, Client] = {
    "urllib3, retries=False": Client(with_urllib3(False), 0),
    "urllib3, retries=0": Client(with_urllib3(0), 0),
    "urllib3, Retry(3)": Client(with_urllib3(Retry(3, backoff_factor=0)), 3),
    "urllib3, Retry(read=0)": Client(with_urllib3(Retry(3, read=0)), 0),
    "requests": Client(with_requests(0), 0),
    "requests, Retry(2)": Client(with_requests(Retry(2, backoff_factor=0)), 2),
    "keystoneauth1": Client(with_keystoneauth1(0), 0),
    "keystoneauth1, connect_retries=2": Client(with_keystoneauth1(2), 2),
}


@pytest.fixture
def reused():
    """Makes a client whose connection to a server has answered; closes it in the end."""
    closing = []

    def make(client: Client, server: FaultServer, method: str = "GET") -> Callable[[str], Seen]:
        call = client.make()
        closing.append(call.close)
        assert call(method, server.url + "prime") == Seen(200, 0)
        return lambda method: call(method, server.url + "wanted")

    yield make
    for close in closing:
        close()


def arrivals(server: FaultServer) -> int:
    return server.journal.count(path="/wanted")


@pytest.mark.each_value
@pytest.mark.parametrize("step", [Close(), Reset(), ProcessThenClose(), ProcessThenReset()])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("name", CLIENTS)
def test_one_attempt_is_seen(name, method, step, reused):
    with shim(**WITH_REPLAY), FaultServer([ECHO, step], default=ECHO) as server:
        call = reused(CLIENTS[name], server, method)
        assert call(method) == Seen(200, 0)
        assert arrivals(server) == 2
        assert counters(server)["replays"] == {"ok": 1}
        assert server.journal[-1].body == BODIES.get(method, b"")


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("name", CLIENTS)
def test_stock_shows_the_failure(name, method, reused):
    """As an error, or as a retry of the client's own, which it counts."""
    client = CLIENTS[name]
    with stock(), FaultServer([ECHO, Close()], default=ECHO) as server:
        call = reused(client, server)
        assert call(method) == (Seen(200, 1) if client.retries else Seen(0, 0))
        assert arrivals(server) == (2 if client.retries else 1)


@pytest.mark.each_value
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CLIENTS)
def test_the_clients_own_retries_go_on_as_they_would(name, method, reused):
    """Every answer fails: the client retries as often as it is told, each time on a fresh
    connection, of which none is replayed."""
    arrived, seen = {}, {}
    for who in (stock, lambda: shim(**WITH_REPLAY)):
        with who(), FaultServer([ECHO], default=Close()) as server:
            call = reused(CLIENTS[name], server)
            seen[who] = call(method)
            arrived[who] = arrivals(server)
    (by_stock, ours) = arrived.values()
    assert len(set(seen.values())) == 1, seen
    assert ours == by_stock + (method in ("GET", "PUT", "DELETE"))


@pytest.mark.parametrize("step", [ProcessThenClose(), ProcessThenReset(), HalfStatusLine()])
@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if not client.retries])
def test_a_post_that_was_processed_is_never_sent_again(name, step, reused):
    for who in (stock, lambda: shim(**WITH_REPLAY)):
        with who(), FaultServer([ECHO, step], default=ECHO) as server:
            call = reused(CLIENTS[name], server)
            assert call("POST") == Seen(0, 0)
            assert arrivals(server) == len(server.journal.processed("POST")) == 1
