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

    import urllib3
    import stalepool
    from stalepool_testing import TLS, CloseAfter, FaultServer, ResetAfter, Respond, echo

    tls = TLS(sys.argv[1]) if sys.argv[1] else None
    scheme = "HTTPS" if tls else "HTTP"
    trust = {"ca_certs": tls.ca_path} if tls else {}
    THREADS, REQUESTS = 16, 13
    sys.setswitchinterval(1e-4)
    # one step on every build: list.append and extend, dict.setdefault and pop
    failures, asked, dropped, replayed, holder = [], [], [], [], {}

    class Connection(getattr(urllib3.connection, scheme + "Connection")):
        def send(self, data):
            if holder.get(id(self)) != threading.get_ident():
                failures.append("sent on a connection that another thread holds")
            super().send(data)

    class Pool(getattr(urllib3, scheme + "ConnectionPool")):
        ConnectionCls = Connection

        def _get_conn(self, timeout=None):
            conn = super()._get_conn(timeout)
            if holder.setdefault(id(conn), threading.get_ident()) != threading.get_ident():
                failures.append("handed out to two threads")
            return conn

        def _put_conn(self, conn):
            if holder.pop(id(conn), None) != threading.get_ident():
                failures.append("put back by another thread")
            super()._put_conn(conn)

    ours = urllib3.connectionpool.is_connection_dropped

    def is_connection_dropped(conn):
        is_dropped = ours(conn)
        asked.append(conn)
        dropped.extend([conn] * is_dropped)
        return is_dropped

    urllib3.connectionpool.is_connection_dropped = is_connection_dropped

    ANSWER = Respond(200, echo)

    def serve(request):
        "Two of thirteen answers are the last on their connection, which nobody announces."
        number = int(request.path.partition("-")[2])
        return {5: [ANSWER, CloseAfter(0)], 9: [ANSWER, ResetAfter(0)]}.get(number % 13, ANSWER)

    def ask(number):
        ready.wait(20)
        for turn in range(REQUESTS):
            path = "/%d-%d" % (number, turn)
            response = pool.request("GET", path)
            replayed.extend([path] * response.stalepool_replayed)
            if response.status != 200 or json.loads(response.data)["path"] != path:
                failures.append("%s was answered %r" % (path, response.data))

    def look():
        ready.wait(20)
        while not is_over.wait(0.01):
            json.dumps(stalepool.snapshot())

    def caught(act, *args):
        try:
            act(*args)
        except BaseException as error:
            failures.append(repr(error))

    ready, is_over = threading.Barrier(THREADS + 1), threading.Event()
    with FaultServer(serve, tls=tls) as server:
        # fewer places than threads: connections are thrown away, too
        limits = {"maxsize": THREADS // 2, "retries": False}
        with Pool("127.0.0.1", server.port, **limits, **trust) as pool:
            asking = [threading.Thread(target=caught, args=(ask, n)) for n in range(THREADS)]
            looking = threading.Thread(target=caught, args=(look,))
            for thread in [*asking, looking]:
                thread.start()
            for thread in asking:
                thread.join()
            is_over.set()
            looking.join()
    arrived = Counter(entry.path for entry in server.journal)
    seen = stalepool.snapshot()
    print(json.dumps({
        "failures": failures[:10],
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
    environ = {**WITH_TESTS, "PYTHON_GIL": "0"} if is_free() else WITH_TESTS
    seen = run_python(HAMMER, version, env=environ)

    assert seen["failures"] == [] and seen["fallbacks"] == {}
    assert seen["has_gil"] is not is_free()
    assert seen["arrived"] == 16 * 13
    assert set(seen["arrived_twice"]) <= set(seen["replayed"])
    totals = seen["totals"]
    assert totals["checkouts"] == sum(totals["verdicts"].values()) == seen["asked"]
    assert totals["discards"] == seen["dropped"] > 0
    assert totals["replays"].get("ok", 0) == len(seen["replayed"])
    assert set(totals["verdicts"]) <= {"alive", "closed", "reset"}


def is_free() -> bool:
    """Tell whether this Python was built to run without the interpreter's lock."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
