"""The first wait: for how long, in seconds, nothing is done about a request that is silent."""

from __future__ import annotations

import socket
from typing import Any, Callable, ClassVar, Dict, List, NamedTuple, Optional

import pytest
import urllib3

from pools import shim
from replay_tools import reused
from stalepool.connection import silence
from stalepool.connection.state import Request
from stalepool.settings import Settings


class Case(NamedTuple):
    wait_s: Optional[float]
    method: str = "GET"
    head: bytes = b""
    limit_s: Optional[float] = None
    is_reused: bool = True
    is_replayed: bool = False
    settings: Dict[str, Any] = {}


CASES = {
    "no limit of the caller's": Case(10.0),
    "a limit that leaves room": Case(10.0, limit_s=60.0),
    "half of a limit, less two probes": Case(7.5, limit_s=20.0),
    "a limit that leaves none": Case(None, limit_s=5.9),
    "a setting of its own": Case(3.0, settings={"silence_s": 3}),
    "switched off": Case(None, settings={"silence_s": "off"}),
    "audit": Case(None, settings={"mode": "audit"}),
    "a connection that has not answered": Case(None, is_reused=False),
    "a second try": Case(None, is_replayed=True),
    "POST": Case(None, "POST"),
    "POST with a key": Case(10.0, "POST", b"Idempotency-Key: k\r\n"),
    "PUT where only safe ones are sent again": Case(None, "PUT", settings={"replay": "safe"}),
    "replay is off": Case(None, settings={"replay": "off"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_wait(name: str) -> None:
    case = CASES[name]
    conn = urllib3.connection.HTTPConnection("127.0.0.1")
    conn._method = case.method
    head = b"%s / HTTP/1.1\r\nHost: a\r\n%s\r\n" % (case.method.encode(), case.head)
    request = Request(conn, head, case.is_reused)
    request.limit_s, request.is_replayed = case.limit_s, case.is_replayed
    settings = Settings(**{"silence_s": 10, "replay": "idempotent", **case.settings})
    assert silence.first_wait_s(request, settings) == (
        None if case.wait_s is None else pytest.approx(case.wait_s - silence.OFF_ROUND_S)
    )


class Told(socket.socket):
    """A socket that tells which timeouts are set on it."""

    limits: ClassVar[List[Optional[float]]] = []

    def settimeout(self, value: Optional[float]) -> None:
        self.limits.append(value)
        super().settimeout(value)


class Wrapper:
    """Somebody's own kind of socket, made like urllib3's around pyOpenSSL."""

    makefile = socket.socket.makefile
    _io_refs = 0

    def __init__(self, sock: Told) -> None:
        self._told = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._told, name)


@pytest.mark.parametrize("make, waits", [(lambda sock: sock, True), (Wrapper, False)])
def test_a_socket_of_unknown_kind_waits_as_in_stock(
    make: Callable[[Told], Any], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its peer cannot be asked, and its timeout may be an error of its own."""

    def connect(address: Any, *args: Any, **options: Any) -> Any:
        sock = Told(socket.AF_INET, socket.SOCK_STREAM)
        sock.connect(address)
        return make(sock)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    with shim(replay="idempotent", silence_s=7), reused(timeout=None) as (_, pool):
        Told.limits.clear()
        assert pool.request("GET", "/").status == 200
        assert (7.0 - silence.OFF_ROUND_S in Told.limits) is waits
