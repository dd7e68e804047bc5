"""A broken part of the shim, whichever it is: urllib3 does the request alone."""

from __future__ import annotations

import pytest
import urllib3

import stalepool
from breaks import breaks
from pools import (
    EVERYTHING,
    break_while_idle,
    counters,
    get,
    pooled_connection,
    serving,
    shim,
    verdicts,
)
from stalepool_testing import CloseAfter, Respond


@pytest.mark.each_value
@pytest.mark.parametrize(
    "part",
    [
        "liveness",
        "poller",
        "TCP_INFO",
        "layers",
        "HTTP version",
        "full check",
        "report of the check",
    ],
)
@pytest.mark.parametrize("peer", ["open", "closed"])
def test_a_broken_part_leaves_it_to_urllib3(part, peer):
    script = [Respond(200), CloseAfter(0)] if peer == "closed" else []
    with shim(), serving(script) as (server, pool):
        assert get(pool) == 200
        if peer == "closed":
            break_while_idle(server, pool, healthy_requests=0)
        with breaks(part):
            assert get(pool) == 200
        assert stalepool.snapshot()["fallbacks"].get("check_failed") == 1
        assert len(server.journal.connections) == (2 if peer == "closed" else 1)


@pytest.mark.each_value
@pytest.mark.parametrize(
    "part",
    [
        "counters",
        "keepalive",
        "time limit",
        "reason to move",
        "record of a request",
        "answer's note",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_broken_part_costs_no_request(part, method):
    """On a connection that is opened, and on one that is reused."""
    with shim(**EVERYTHING), serving() as (server, pool):
        with breaks(part):
            assert [pool.request(method, "/", body=b"x").status for _ in range(3)] == [200] * 3
        assert get(pool) == 200
        assert len(server.journal) == 4


def test_a_broken_runtime():
    class Broken:
        @property
        def settings(self):
            raise RuntimeError("broken")

        is_audit = settings

    with shim(), serving() as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        with breaks("runtime", by=Broken()):
            conn = pooled_connection(pool)
            assert urllib3.connectionpool.is_connection_dropped(conn) is False
        assert get(pool) == 200
        assert verdicts(server)["alive"] >= 2
        assert counters(server)["discards"] == 0
