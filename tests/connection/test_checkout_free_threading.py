"""One pool under sixteen threads at once; without the GIL where the build allows it.

Counted beside the shim, too: at the pool that hands connections out, and at the server.
"""

from __future__ import annotations

import sysconfig
from typing import Any, Callable

import pytest

import lanes
from worlds import WITH_TESTS

HAMMER = """
    import json, sys, threading
    from collections import Counter
    from functools import partial
    from threading import get_ident

    import urllib3
    import stalepool
    from pools import serving
    from replay_tools import ECHO, side_by_side
    from stalepool_testing import CloseAfter, ResetAfter

    THREADS, REQUESTS = 16, 13
    sys.setswitchinterval(1e-4)
    # one step on every build: list.append and extend, dict.setdefault and pop
    asked, dropped, replayed, holder = [], [], [], {}
    ours = urllib3.connectionpool.is_connection_dropped

    def is_connection_dropped(conn):
        is_dropped = ours(conn)
        asked.append(conn)
        dropped.extend([conn] * is_dropped)
        return is_dropped

    urllib3.connectionpool.is_connection_dropped = is_connection_dropped

    def take(get_conn, timeout=None):
        conn = get_conn(timeout)
        assert holder.setdefault(id(conn), get_ident()) == get_ident(), "given to two threads"
        return conn

    def put_back(put_conn, conn):
        assert holder.pop(id(conn), None) == get_ident(), "put back by another thread"
        put_conn(conn)

    def serve(request):
        "Two of thirteen answers are the last on their connection, which nobody announces."
        number = int(request.path.partition("-")[2])
        return {5: [ECHO, CloseAfter(0)], 9: [ECHO, ResetAfter(0)]}.get(number % 13, ECHO)

    def ask(number):
        ready.wait(20)
        for turn in range(REQUESTS):
            path = "/%d-%d" % (number, turn)
            response = pool.request("GET", path)
            replayed.extend([path] * response.stalepool_replayed)
            assert (response.status, json.loads(response.data)["path"]) == (200, path)

    ready = threading.Barrier(THREADS)
    # fewer places than threads: connections are thrown away, too
    with serving(serve, tls=sys.argv[1] or None, maxsize=THREADS // 2) as (server, pool):
        pool._get_conn = partial(take, pool._get_conn)
        pool._put_conn = partial(put_back, pool._put_conn)
        side_by_side([partial(ask, n) for n in range(THREADS)], THREADS)
    arrived = Counter(entry.path for entry in server.journal)
    seen = stalepool.snapshot()
    print(json.dumps({
        "has_gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "arrived": len(arrived),
        "arrived_twice": sorted(path for path, times in arrived.items() if times > 1),
        "replayed": sorted(replayed),
        "asked": len(asked),
        "dropped": len(dropped),
        "totals": seen["totals"],
        "fallbacks": seen["fallbacks"],
    }))
"""


@pytest.mark.parametrize("version", lanes.first(1, ["TLSv1.3", ""]))
def test_sixteen_threads_at_one_pool(run_python: Callable[..., Any], version: str) -> None:
    """No count is lost, no verdict doubled, and no request rides on another thread's connection."""
    is_free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))  # built to run without the GIL
    environ = {**WITH_TESTS, "PYTHON_GIL": "0"} if is_free else WITH_TESTS
    seen = run_python(HAMMER, version, env=environ)

    assert seen["fallbacks"] == {}
    assert seen["has_gil"] is not is_free
    assert seen["arrived"] == 16 * 13
    assert set(seen["arrived_twice"]) <= set(seen["replayed"])
    totals = seen["totals"]
    assert totals["checkouts"] == sum(totals["verdicts"].values()) == seen["asked"]
    assert totals["discards"] == seen["dropped"] > 0
    assert totals["replays"].get("ok", 0) == len(seen["replayed"])
    assert set(totals["verdicts"]) <= {"alive", "closed", "reset"}
