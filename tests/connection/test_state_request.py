"""What a request holds: its bytes, and no longer than they are needed."""

import tracemalloc
from types import SimpleNamespace

import pytest
import urllib3
from urllib3.connection import HTTPConnection

from pools import counters, shim
from replay_tools import recorded, reset_after_checkout, reused, side_by_side
from stalepool.connection.state import FRESH, Request
from stalepool.settings import Settings
from stalepool_testing import Silence, healthy, into_pool

MB = 1 << 20


def test_of_large_first_bytes_nothing_is_kept():
    """What follows a hijacked answer is no request."""
    fresh = SimpleNamespace(phase=FRESH)
    request = Request(fresh, HTTPConnection("127.0.0.1"), bytes(MB + 1), Settings())
    assert request.sent == [b""] and not request.is_recorded
    assert request.left_s is None  # no limit


def test_audit_counts_the_bytes_of_a_body_and_keeps_none():
    """For the number of requests that active would have sent once more."""
    request = Request(
        SimpleNamespace(phase=FRESH), HTTPConnection("a"), b"head", Settings(mode="audit")
    )
    request.record(bytes(MB // 2))
    assert (request.sent, request.size) == ([b"head", b""], 4 + MB // 2)


def test_a_failed_request_leaves_no_body_behind():
    with shim(replay="idempotent"), reused(Silence()) as (_server, pool):
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            pool.request("PUT", "/", body=bytes(MB // 2), timeout=0.3)
        assert recorded() < MB // 8


@pytest.mark.usefixtures("no_collector")
def test_a_send_that_failed_and_was_repeated_leaves_none_behind():
    """Not even until the next garbage collection: the send's error has a traceback."""
    with shim(replay="idempotent"), reused() as (server, pool):
        reset_after_checkout(server, pool)
        assert pool.request("PUT", "/", body=bytes(MB // 2)).stalepool_replayed
        assert recorded() < MB // 8
        assert counters(server)["replays"] == {"ok": 1}


def test_a_large_body_is_not_copied():
    """Stock: sent as it is. A second one of its size may be more than a container has."""
    body, buffer = bytearray(32 * MB), bytearray(1 << 16)

    def serve():
        """Keep nothing of what is read."""
        left = len(body) - len(pair.peer.recv(4096).partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= pair.peer.recv_into(buffer)
        pair.peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with shim(replay="idempotent"), healthy() as pair:
        with urllib3.HTTPConnectionPool("127.0.0.1", 1, retries=False) as pool:
            into_pool(pool, pair.client)
            for method in ("POST", "PUT"):
                tracemalloc.start()
                side_by_side([serve, lambda m=method: pool.request(m, "/", body=memoryview(body))])
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak < 4 * MB, (method, peak)
