"""A soak whose server gets its faults while it runs."""

from __future__ import annotations

import threading
from typing import Any, List, Optional

import pytest
import urllib3

import lanes
from stalepool_testing import (
    TLS,
    Bandwidth,
    FaultServer,
    Journal,
    Latency,
    ResetAtNextByte,
    stalepool_off,
    stalepool_on,
)

WORKERS = 4
ROUNDS = 3


class Load:
    """Workers that send one GET after the other, each on a connection of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        self.lost: List[Exception] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(url, options)) for _ in range(WORKERS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(self, url: str, options: Any) -> None:
        with urllib3.PoolManager(retries=False, timeout=30.0, **options) as pool:
            while not self._stopping.is_set():
                try:
                    assert pool.request("GET", url).status == 200
                except urllib3.exceptions.HTTPError as error:
                    self.lost.append(error)


def every_connection_is_reused(journal: Journal) -> bool:
    """Each worker's connection has brought a second request, so the first was answered."""
    used = [entry.connection for entry in journal]
    open_ones = [c.number for c in journal.connections if c.ended is None]
    return len(open_ones) == WORKERS and all(used.count(number) > 1 for number in open_ones)


def steer(server: FaultServer) -> None:
    journal = server.journal
    for _ in range(ROUNDS):
        for direction in "up", "down":
            journal.wait(every_connection_is_reused, 30, "second request on each connection")
            ended = [c for c in journal.connections if c.ended is None]
            with server.add(ResetAtNextByte(direction), only_open=True):
                journal.wait(lambda _, those=ended: all(c.ended for c in those), 30, "resets")
    with server.add(Latency(0.005)), server.add(Latency(0.005, "up")), server.add(Bandwidth(20000)):
        server.wait_request(len(journal) + 20, 30)


@pytest.mark.parametrize("tls", [None, "TLSv1.3"], ids=["plain", "TLSv1.3"])
@pytest.mark.parametrize("shim", lanes.first(1, [stalepool_on, stalepool_off]))
def test_soak(shim: Any, tls: Optional[str]) -> None:
    context = TLS(tls) if tls else None
    options = {"ca_certs": context.ca_path} if context else {}
    with shim(), FaultServer(tls=context) as server:
        with Load(server.url, **options) as load:
            steer(server)
        assert sum(c.ended == "reset" for c in server.journal.connections) == WORKERS * 2 * ROUNDS
        # each reset met one request: the shim sends it again, urllib3 alone loses it
        assert len(load.lost) == (0 if shim is stalepool_on else WORKERS * 2 * ROUNDS), load.lost
