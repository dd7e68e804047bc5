"""Memory that each pooled connection takes, in bytes: the difference to stock's."""

from __future__ import annotations

import gc
import select
import sys
import tracemalloc
from typing import Any, Dict

from bench import kernel_poll
from bench import server as servers
from bench.child import call
from bench.server import At, Server

#: a connection each, so within the usual 1024 descriptors
FEW, MANY = 100, 700


def compare(tls: bool) -> Dict[str, float]:
    """Bytes per pooled connection: stock's, ours, and a kept poll object's by itself."""
    with Server(tls=tls) as server:
        halves = {
            name: call("bench.memory:per_connection", at=server.at, shim=name == "ours")
            for name in ("stock", "ours")
        }
    return {**halves, "floor": call("bench.memory:per_kept_poll")}


def per_connection(at: At, shim: bool) -> float:
    """In the child: what a connection more in the pool takes, after two requests on each."""
    if shim:
        import stalepool  # noqa: F401  # installs itself
    assert shim == ("stalepool" in sys.modules)
    pool = servers.pool(at, maxsize=MANY)
    tracemalloc.start()
    sizes = []
    for count in (FEW, MANY):
        for _ in range(2):  # the second time they are all checked out
            _use_all_at_once(pool, count)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    assert pool.num_connections == MANY, pool.num_connections
    return (sizes[1] - sizes[0]) / (MANY - FEW)


def per_kept_poll() -> float:
    """The kernel's poll object, used once, and its bound ``poll``."""
    tracemalloc.start()
    kept = []
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(MANY):
        made = kernel_poll()
        made.register(0, select.POLLIN)
        made.poll(0)
        kept.append(made.poll)
    return (tracemalloc.get_traced_memory()[0] - before) / MANY - sys.getsizeof(kept) / MANY


def _use_all_at_once(pool: Any, count: int) -> None:
    responses = [
        pool.urlopen("GET", "/", preload_content=False, retries=False) for _ in range(count)
    ]
    for response in responses:
        response.read()
        response.release_conn()
