"""What is not done by turns: memory, an interpreter's start, the race at checkout."""

from __future__ import annotations

import gc
import random
import resource
import select
import subprocess
import sys
import tracemalloc
from collections import Counter
from typing import Any, Dict, List

from bench import EVENTLET, kernel_poll
from bench.processes import At, call, manager, server
from bench.quantity import of_share
from bench.turns import Samples, by_name, crowd

#: pooled connections, within the usual 1024 descriptors
FEW, MANY = 100, 700


def memory(tls: bool) -> Samples:
    """Bytes per pooled connection: stock's, ours, and a kept poll object's by itself."""
    with server(tls) as at:
        stock, ours = (call(_connections, at=at, shim=shim) for shim in (False, True))
    floor, more = call(_polls), ours - stock
    found = {"floor": floor, "stock": stock, "ours": ours, "bytes more": more}
    return by_name([{**found, "bytes more / floor": more / floor}])


def _connections(at: At, shim: bool) -> float:
    """In the child: what a connection more in the pool takes, after two requests on each."""
    if shim:
        import stalepool  # noqa: F401  # installs itself
    assert shim == ("stalepool" in sys.modules)
    connections = manager(at, maxsize=MANY).connection_from_url(at[0])
    tracemalloc.start()
    sizes = {}
    for count in (FEW, FEW, MANY, MANY):  # the second time they are all checked out
        responses = [connections.urlopen("GET", "/", preload_content=False) for _ in range(count)]
        while responses:
            responses[-1].read()
            responses.pop().release_conn()
        gc.collect()
        sizes[count] = tracemalloc.get_traced_memory()[0]
    assert connections.num_connections == MANY, connections.num_connections
    return (sizes[MANY] - sizes[FEW]) / (MANY - FEW)


def _polls() -> float:
    """In the child: the kernel's poll object, used once, and its bound ``poll``."""
    tracemalloc.start()
    kept: List[Any] = [None] * MANY
    before = tracemalloc.get_traced_memory()[0]
    for number in range(MANY):
        made = kernel_poll()
        made.register(0, select.POLLIN)
        made.poll(0)
        kept[number] = made.poll
    return (tracemalloc.get_traced_memory()[0] - before) / MANY


_SCRIPT = """
import sys, time  # built in: they cost nothing
before, began = len(sys.modules), time.perf_counter()
%s
took = time.perf_counter() - began
print(1000 * took, len(sys.modules) - before)
"""


def starts(quick: bool) -> Samples:
    """Start interpreters: one that imports nothing, one that imports stalepool; CPU time in ms."""
    found = []
    for number in range(11 if quick else 101):
        pair: Dict[str, float] = {}
        for who in ("ours", "floor") if number % 2 else ("floor", "ours"):
            script = _SCRIPT % ("import stalepool" if who == "ours" else "")
            before_s = _children_cpu_s()
            said = subprocess.check_output([sys.executable, "-c", script], text=True).split()
            pair[who] = 1000 * (_children_cpu_s() - before_s)
            if who == "ours":
                pair["import, ms"], pair["modules"] = map(float, said)
        found.append({**pair, "ours / bare interpreter": pair["ours"] / pair["floor"]})
    return by_name(found[1:])  # the first ones only warm the caches


def _children_cpu_s() -> float:
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


#: the race: seconds after which the server closes an idle connection, and for which a client pauses
IDLE_S = (1.0, 5.0)
CLIENTS, BUSY, WORK_S = 400, 100, 0.001


def races(quick: bool) -> Dict[str, Any]:
    """How many of 10,000 requests fail, ours and stock's."""
    found: Dict[str, Any] = {"notes": {}}
    for who in ("ours", "stock"):
        with server(idle_s=IDLE_S) as at:
            seen = call(_race, EVENTLET, at=at, shim=who == "ours", requests=3 if quick else 25)
        failed = sum(seen["failures"].values())
        found[who] = of_share(failed, seen["served"] + failed, per=10000)
        found["notes"][who] = seen
    return found


def _race(at: At, shim: bool, requests: int) -> Dict[str, Any]:
    """In the child: clients, each with a connection of its own, beside a busy crowd.

    They pause about as long as the server keeps an idle connection. However long a check takes, in
    that time connections die that it has found alive.
    """
    if shim:
        import stalepool  # installs itself
    import eventlet

    ends: Counter[str] = Counter()

    def be_client(number: int) -> None:
        pause = random.Random(number)
        connections = manager(at)
        eventlet.sleep(pause.uniform(0, IDLE_S[1]))  # not all at once
        for _ in range(requests):
            try:
                assert connections.request("GET", at[0], retries=False).status == 200
                ends["served"] += 1
            except Exception as error:
                ends[type(error).__name__] += 1
            eventlet.sleep(pause.uniform(*IDLE_S))

    with crowd(BUSY, WORK_S):
        for one in [eventlet.spawn(be_client, number) for number in range(CLIENTS)]:
            one.wait()
    did = stalepool.snapshot()["totals"] if shim else {}
    return {"served": ends.pop("served", 0), "failures": dict(ends), "did": did}
