"""One pool under sixteen threads at once; without the GIL where the build allows it."""

import functools
import json
import sys
import threading
from collections import Counter

import pytest
import urllib3

import lanes
import stalepool
from breaks import breaks
from pools import serving, shim
from replay_tools import ECHO, side_by_side
from stalepool_testing import CloseAfter, ResetAfter

THREADS, REQUESTS = 16, 13


def serve(request):
    """Two of thirteen answers are the last on their connection, which nobody announces."""
    number = int(request.path.partition("-")[2])
    return {5: [ECHO, CloseAfter(0)], 9: [ECHO, ResetAfter(0)]}.get(number % REQUESTS, ECHO)


@pytest.mark.parametrize("version", lanes.first(1, ["TLSv1.3", None]))
def test_sixteen_threads_at_one_pool(monkeypatch, version, request):
    """No count is lost, no verdict doubled, and no request rides on another thread's connection."""
    request.addfinalizer(functools.partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-4)
    # counted beside the shim, too; to append is one step on every build
    asked = []
    replayed = []
    ready, ours = threading.Barrier(THREADS), urllib3.connectionpool.is_connection_dropped

    def is_connection_dropped(conn):
        is_dropped = ours(conn)
        asked.append(is_dropped)
        return is_dropped

    def ask(number):
        ready.wait(20)
        for turn in range(REQUESTS):
            path = "/%d-%d" % (number, turn)
            response = pool.request("GET", path)
            replayed.extend([path] * response.stalepool_replayed)
            assert (response.status, json.loads(response.data)["path"]) == (200, path)

    # fewer places than threads: connections are thrown away, too; and a machine may be busy
    settings = {"replay": "idempotent", "replay_within_s": 60, "presend_check": True}
    with breaks("limit of a replay's connect", by=60.0), shim(**settings), serving(
        serve, tls=version, maxsize=THREADS // 2
    ) as (server, pool):
        monkeypatch.setattr("urllib3.connectionpool.is_connection_dropped", is_connection_dropped)
        side_by_side([functools.partial(ask, number) for number in range(THREADS)], THREADS)
        monkeypatch.undo()
        seen = stalepool.snapshot()
    arrived = Counter(entry.path for entry in server.journal)
    totals = seen["totals"]
    assert len(arrived) == THREADS * REQUESTS
    assert {path for path, times in arrived.items() if times > 1} <= set(replayed)
    assert totals["checkouts"] == sum(totals["verdicts"].values()) == len(asked)
    assert totals["discards"] == sum(asked) > 0
    assert totals["replays"].get("ok", 0) == len(replayed)
    assert set(totals["verdicts"]) <= {"alive", "closed", "reset"}
