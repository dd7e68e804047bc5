"""Whole requests, stock and ours in processes of their own, by turns.

The server never sleeps. Over loopback it is the sender who pays for waking it, and stock under
eventlet, which yields before it sends, sends in bursts and wakes it less often: with a server that
sleeps this made 0.95 of a ratio of 1.08 (measured in a virtual machine of two processors). A server
on another machine is not woken at the client's expense.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from bench import EVENTLET, THREADS
from bench.checks import kept_poll
from bench.child import Child
from bench.crowds import GreenCrowd
from bench.rounds import Contest, Contestant
from bench.server import At, Server


class Scenario(NamedTuple):
    """Requests of one kind, and how often: turns are short, so that what is slow slows both."""

    method: str = "GET"
    body_size: int = 0
    tls: bool = False
    world: str = THREADS
    #: they send over one urllib3 pool, beside so many green threads that work 1 ms each
    clients: int = 1
    busy: int = 0
    #: of each client in a turn
    requests: int = 50
    #: each request on a connection of its own that has been idle for so long
    idle_s: float = 0.0
    #: what a request costs: the process's CPU time, or the time that passes
    clock: str = "process_time"
    #: pairs of processes, and turns of each half
    pairs: int = 30
    turns: int = 24
    #: instead of stock and ours: one process, stalepool with these settings and without
    without: Optional[Dict[str, Any]] = None


_GREEN = Scenario(world=EVENTLET, clients=50, requests=4, pairs=25)

SCENARIOS = {
    "get": Scenario(),
    "post": Scenario("POST", 64),
    "post-idle": Scenario("POST", 64, idle_s=2.0, pairs=20, turns=4),
    "put": Scenario("PUT", 1024),
    "get-tls": Scenario(tls=True),
    "post-tls": Scenario("POST", 64, tls=True),
    "get-eventlet": _GREEN,
    "post-eventlet": _GREEN._replace(method="POST", body_size=64),
    "busy": Scenario(
        *("GET", 0, False, EVENTLET),
        **{"clients": 5, "busy": 20, "requests": 40, "clock": "perf_counter"},
        **{"pairs": 10, "turns": 2},
    ),
    "silence": Scenario(without={"silence_s": "off"}),
}


def compare(name: str, quick: bool) -> List[Dict[str, float]]:
    """Seconds per request of both halves and of a floor, one result for each pair of processes.

    Two processes differ for good by how their memory happens to lie (which names share a place in
    CPython's cache of attributes alone is worth 1 to 2 %), so a pair is one sample, the median of
    its turns; more turns do not narrow what only more pairs can.
    """
    plan = SCENARIOS[name]
    pairs, turns = plan.pairs, plan.turns
    if quick:
        pairs, turns = pairs // 10 or 1, max(2, turns // 6)
    return [_compare_pair(name, pair, turns) for pair in range(pairs)]


def _compare_pair(name: str, pair: int, turns: int) -> Dict[str, float]:
    plan = SCENARIOS[name]
    with Server(tls=plan.tls, spins=True) as server, contextlib.ExitStack() as stack:

        def start(shim: bool) -> Child:
            half = Child("bench.rate:half", plan.world, pair, at=server.at, name=name, shim=shim)
            return stack.enter_context(half)

        ours = start(True)
        stock = ours if plan.without else start(False)
        rounds = [_round(pair + turn, stock, ours, plan) for turn in range(turns + 1)][1:]
    return {
        one: statistics.median(by(turn["stock"], turn["ours"]) for turn in rounds)
        for one, by in _RESULTS.items()
    }


_RESULTS: Dict[str, Callable[[Dict[str, float], Dict[str, float]], float]] = {
    "floor": lambda stock, ours: ours["floor"],
    "stock": lambda stock, ours: stock["request"],
    "ours": lambda stock, ours: ours["request"],
    "stock / ours": lambda stock, ours: stock["request"] / ours["request"],
    "(ours - stock) / floor": lambda stock, ours: (
        (ours["request"] - stock["request"]) / ours["floor"]
    ),
}


def _round(number: int, stock: Child, ours: Child, plan: Scenario) -> Dict[str, Any]:
    """A turn of each, in another order each time."""
    turns = [
        ("stock", lambda: stock.ask(plan.without)),
        ("ours", lambda: ours.ask({} if plan.without else None)),
    ]
    return {who: turn() for who, turn in (turns[::-1] if number % 2 else turns)}


def half(at: At, name: str, shim: bool) -> Callable[[Optional[Dict[str, Any]]], Dict[str, float]]:
    """In the child: a function that sends a turn's requests, and says what one of them cost.

    It is handed settings to install first, where those are compared.
    """
    if shim:
        import stalepool  # installs itself
    assert shim == ("stalepool" in sys.modules)
    import urllib3

    plan = SCENARIOS[name]
    clock, body = getattr(time, plan.clock), b"x" * plan.body_size or None
    url = "http%s://127.0.0.1:%d/v2.0/ports" % ("s" if plan.tls else "", at["port"])
    managers = [
        urllib3.PoolManager(maxsize=plan.clients, ca_certs=at["ca_path"])
        for _ in range(plan.requests if plan.idle_s else 1)
    ]
    near, _far = socket.socketpair()
    floor = Contest({"floor": Contestant(kept_poll(near), 0)})
    idle_since = 0.0

    def send() -> None:
        for number in range(plan.requests):
            manager = managers[number % len(managers)]
            assert manager.request(plan.method, url, body=body, retries=False).status == 200

    def turn(settings: Optional[Dict[str, Any]]) -> Dict[str, float]:
        nonlocal idle_since
        if settings is not None:
            stalepool.install(**settings)
            send()  # the first checks after other settings are full ones
        time.sleep(max(0.0, idle_since + plan.idle_s - time.monotonic()) if plan.idle_s else 0.0)
        gc.collect()
        with GreenCrowd(plan.busy, 0.001) if plan.busy else contextlib.nullcontext():
            began = clock()
            _all_at_once(send, plan.clients)
            took = clock() - began
        idle_since = time.monotonic()
        request_s = took / (plan.requests * plan.clients)
        return {"request": request_s, "floor": floor.round()["floor"]}

    return turn


def _all_at_once(send: Callable[[], None], clients: int) -> None:
    if clients == 1:
        send()
        return
    import eventlet

    for client in [eventlet.spawn(send) for _ in range(clients)]:
        client.wait()
