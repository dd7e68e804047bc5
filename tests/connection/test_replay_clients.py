"""Whatever client is on top, and however it counts its own retries: it sees one attempt."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, ContextManager, Dict, Iterator, List, NamedTuple, Tuple

import pytest
import requests
import urllib3
from keystoneauth1.session import Session
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from pools import counters, shim, stock
from replay_tools import BODIES, ECHO
from stalepool_testing import Close, FaultServer

WITH_REPLAY = {"replay": "idempotent"}


class Seen(NamedTuple):
    """One call of a client: its status, 0 for an error; how many retries of its own it counted."""

    status: int
    retries: int


#: sends one request to a URL
Call = Callable[[str, str], Seen]


@contextlib.contextmanager
def with_urllib3(retries: Any) -> Iterator[Call]:
    with urllib3.PoolManager(retries=retries, timeout=10.0) as manager:

        def call(method: str, url: str) -> Seen:
            try:
                answer = manager.request(method, url, body=BODIES.get(method))
            except urllib3.exceptions.HTTPError:
                return Seen(0, 0)
            return Seen(answer.status, len(answer.retries.history) if answer.retries else 0)

        yield call


@contextlib.contextmanager
def with_requests(retries: Any) -> Iterator[Call]:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retries))

        def call(method: str, url: str) -> Seen:
            try:
                answer = session.request(method, url, data=BODIES.get(method), timeout=10)
            except requests.ConnectionError:
                return Seen(0, 0)
            return Seen(answer.status_code, len(answer.raw.retries.history))

        yield call


@contextlib.contextmanager
def with_keystoneauth1(retries: int) -> Iterator[Call]:
    with requests.Session() as below:
        session = Session(session=below)
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

        yield call


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


CLIENTS: Dict[str, Callable[[], ContextManager[Call]]] = {
    "urllib3, retries=False": lambda: with_urllib3(False),
    "urllib3, Retry(3)": lambda: with_urllib3(Retry(3, backoff_factor=0)),
    "requests": lambda: with_requests(0),
    "requests, Retry(2)": lambda: with_requests(Retry(2, backoff_factor=0)),
    "keystoneauth1, connect_retries=2": lambda: with_keystoneauth1(2),
}


def wanted(call: Call, method: str, server: FaultServer) -> Tuple[Seen, int]:
    """What a client sees whose connection has answered, and how often its request arrived."""
    assert call("GET", server.url + "prime") == Seen(200, 0)
    return call(method, server.url + "wanted"), server.journal.count(path="/wanted")


@pytest.mark.parametrize("name", CLIENTS)
def test_one_attempt_is_seen(name):
    with shim(**WITH_REPLAY), FaultServer([ECHO, Close()], default=ECHO) as server:
        with CLIENTS[name]() as call:
            assert wanted(call, "PUT", server) == (Seen(200, 0), 2)
        assert counters(server)["replays"] == {"ok": 1}
        assert server.journal[-1].body == BODIES["PUT"]


@pytest.mark.each_value
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", CLIENTS)
def test_the_clients_own_retries_go_on_as_they_would(name, method):
    """Every answer fails: the client retries as often as it is told, each time on a fresh
    connection, of which none is replayed."""
    found = []
    for who in (stock, lambda: shim(**WITH_REPLAY)):
        with who(), FaultServer([ECHO], default=Close()) as server, CLIENTS[name]() as call:
            found.append(wanted(call, method, server))
    (seen_in_stock, by_stock), (seen, ours) = found
    assert seen == seen_in_stock
    assert ours == by_stock + (method == "GET")
