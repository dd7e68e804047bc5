"""Whole requests, stock and ours in processes of their own, by turns.

The server never sleeps. Over loopback it is the sender who pays for waking it, and stock under
eventlet, which yields before it sends, sends in bursts and wakes it less often: with a server that
sleeps this made 0.95 of a ratio of 1.08 (measured in a virtual machine of two processors). A server
on another machine is not woken at the client's expense.
"""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple

from bench.child import Child
from bench.crowds import GreenCrowd
from bench.rounds import Contest, Contestant
from bench.server import Server
from bench.world import EVENTLET, THREADS, kernel_poll

At = Dict[str, Any]


class Extent(NamedTuple):
    """So many pairs of processes, and so many turns of each half."""

    pairs: int
    turns: int


class Scenario(NamedTuple):
    """``clients`` send requests over one pool, beside ``busy`` green threads that work 1 ms each.

    ``clock``: what a request costs, the process's CPU time or the time that passes. ``requests``:
    of each client in a turn; turns are short, so that what slows the machine down slows both.
    """

    world: str
    clients: int
    busy: int
    clock: str
    requests: int
    whole: Extent
    quick: Extent


SCENARIOS = {
    "threads": Scenario(
        THREADS,
        clients=1,
        busy=0,
        clock="process_time",
        requests=50,
        whole=Extent(pairs=50, turns=24),
        quick=Extent(pairs=3, turns=4),
    ),
    "eventlet": Scenario(
        EVENTLET,
        clients=50,
        busy=0,
        clock="process_time",
        requests=4,
        whole=Extent(pairs=25, turns=24),
        quick=Extent(pairs=3, turns=4),
    ),
    "busy": Scenario(
        EVENTLET,
        clients=5,
        busy=20,
        clock="perf_counter",
        requests=40,
        whole=Extent(pairs=10, turns=2),
        quick=Extent(pairs=2, turns=1),
    ),
}


def compare(name: str, quick: bool) -> List[Dict[str, float]]:
    """Seconds per request of both halves and of a floor, one result for each pair of processes.

    Two processes differ for good by how their memory happens to lie (which names share a place in
    CPython's cache of attributes alone is worth 1 to 2 %), so a pair is one sample, the median of
    its turns; more turns do not narrow what only more pairs can.
    """
    extent = SCENARIOS[name].quick if quick else SCENARIOS[name].whole
    return [_compare_pair(name, pair, extent.turns) for pair in range(extent.pairs)]


def _compare_pair(name: str, pair: int, turns: int) -> Dict[str, float]:
    world, requests = SCENARIOS[name].world, SCENARIOS[name].requests

    def half(shim: bool) -> Child:
        return Child(
            "bench.rate:half", world, hash_seed=pair, at=server.at, scenario=name, shim=shim
        )

    with Server(spins=True) as server, half(False) as stock, half(True) as ours:
        halves = {"stock": stock, "ours": ours}
        for child in halves.values():
            child.ask(requests)
        rounds = []
        for turn in range(turns):
            order = sorted(halves, reverse=bool((pair + turn) % 2))
            rounds.append({who: halves[who].ask(requests) for who in order})
    one = {who: statistics.median(turn[who]["request"] for turn in rounds) for who in halves}
    return {
        **one,
        "floor": statistics.median(turn["ours"]["floor"] for turn in rounds),
        "stock / ours": statistics.median(
            turn["stock"]["request"] / turn["ours"]["request"] for turn in rounds
        ),
        "(ours - stock) / floor": statistics.median(
            (turn["ours"]["request"] - turn["stock"]["request"]) / turn["ours"]["floor"]
            for turn in rounds
        ),
    }


def half(at: At, scenario: str, shim: bool) -> Callable[[int], Dict[str, float]]:
    """In the child: a function that sends so many requests per client and says what one cost."""
    if shim:
        import stalepool  # noqa: F401  # installs itself
    assert shim == ("stalepool" in sys.modules)
    import urllib3

    plan = SCENARIOS[scenario]
    clock = getattr(time, plan.clock)
    manager = urllib3.PoolManager(maxsize=plan.clients)
    url = "http://127.0.0.1:%d/v2.0/ports" % at["port"]

    near, _far = socket.socketpair()
    kept = kernel_poll()
    kept.register(near.fileno(), select.POLLIN)
    floor = Contest({"floor": Contestant(kept.poll, 0)})

    def send(requests: int) -> None:
        for _ in range(requests):
            assert manager.request("GET", url, retries=False).status == 200

    def turn(requests: int) -> Dict[str, float]:
        gc.collect()
        with GreenCrowd(plan.busy, 0.001) if plan.busy else contextlib.nullcontext():
            began = clock()
            _all_at_once(send, requests, plan.clients)
            took = clock() - began
        return {"request": took / (requests * plan.clients), "floor": floor.round()["floor"]}

    return turn


def _all_at_once(send: Callable[[int], None], requests: int, clients: int) -> None:
    if clients == 1:
        send(requests)
        return
    import eventlet

    for client_ in [eventlet.spawn(send, requests) for _ in range(clients)]:
        client_.wait()
