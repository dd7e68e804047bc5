"""A broken part of the shim, whichever it is: urllib3 does the request alone."""

from __future__ import annotations

import pytest
import urllib3

import stalepool
from breaks import breaks
from pools import EVERYTHING, break_while_idle, get, pooled_connection, serving, shim
from stalepool_testing import CloseAfter, Respond

#: part -> how often the check of a reused connection counts it
PARTS = {
    "liveness": 1,
    "poller": 1,
    "TCP_INFO": 1,
    "layers": 1,
    "HTTP version": 1,
    "full check": 1,
    "report of the check": 1,
    "counters": 0,
    "keepalive": 0,
    "time limit": 0,
    "reason to move": 0,
    "record of a request": 0,
    "answer's note": 0,
}


@pytest.mark.each_value
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("peer", ["open", "closed"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_broken_part_leaves_it_to_urllib3(part, peer, method):
    """On a connection that is reused, and on one that is opened."""
    script = [Respond(200), CloseAfter(0)] if peer == "closed" else []
    settings = {} if PARTS[part] else EVERYTHING  # nothing makes up for a check
    with shim(**settings), serving(script) as (server, pool):
        assert get(pool) == 200
        if peer == "closed":
            break_while_idle(server, pool, healthy_requests=0)
        with breaks(part):
            assert pool.request(method, "/", body=b"x").status == 200
            assert stalepool.snapshot()["fallbacks"].get("check_failed", 0) == PARTS[part]
            pooled_connection(pool).close()
            assert [pool.request(method, "/", body=b"x").status for _ in range(2)] == [200] * 2
        assert get(pool) == 200
        assert len(server.journal.connections) == (3 if peer == "closed" else 2)
        assert len(server.journal) == 5


def test_a_broken_runtime():
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError(name)

    with shim(), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        with breaks("runtime", by=Broken()):
            conn = pooled_connection(pool)
            assert urllib3.connectionpool.is_connection_dropped(conn) is False
        assert get(pool) == 200
        assert len(server.journal.connections) == 1
