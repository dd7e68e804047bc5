"""The first wait: for how long, in seconds, nothing is done about a request that is silent."""

from __future__ import annotations

import socket
from typing import Any, Dict, List, NamedTuple, Optional

import pytest
import urllib3

from pools import UnknownSocket, get, pooled_connection, shim
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
    head = b"%s / HTTP/1.1\r\nHost: a\r\n%s\r\n" % (case.method.encode(), case.head)
    request = Request(urllib3.connection.HTTPConnection("a"), head, case.is_reused)
    request.limit_s, request.is_replayed = case.limit_s, case.is_replayed
    settings = Settings(**{"silence_s": 10, "replay": "idempotent", **case.settings})
    wanted = None if case.wait_s is None else case.wait_s - silence.OFF_ROUND_S
    assert silence.first_wait_s(request, settings) == pytest.approx(wanted)


class Told(UnknownSocket):
    """Made like urllib3's around pyOpenSSL; writes down the timeouts that are set on it."""

    makefile = socket.socket.makefile
    _io_refs = 0

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.limits: List[Optional[float]] = []

    def settimeout(self, value: Optional[float]) -> None:
        self.limits.append(value)
        self._sock.settimeout(value)


def test_a_socket_of_unknown_kind_waits_as_in_stock() -> None:
    """Its peer cannot be asked, and its timeout may be an error of its own."""
    with shim(replay="idempotent", silence_s=7), reused(timeout=None) as (_, pool):
        sock = pooled_connection(pool).sock = Told(pooled_connection(pool).sock)
        for _ in range(2):  # the second one on a connection that has answered
            assert get(pool) == 200
        assert not any(sock.limits)
