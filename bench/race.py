"""The race at checkout: connections that die while a busy worker is looking at them.

Many clients, each with a connection of its own, pause about as long as the server keeps an idle
connection, in a process whose green threads are busy. However long the check takes, in that time
connections die that it has found alive.
"""

from __future__ import annotations

import random
from typing import Any, Dict

from bench import EVENTLET
from bench import server as servers
from bench.child import call
from bench.crowds import GreenCrowd
from bench.server import Server

#: seconds after which the server closes an idle connection, and for which a client pauses
IDLE_S = (1.0, 5.0)

CLIENTS, BUSY, WORK_S = 400, 100, 0.001


def run(shim: bool, requests: int) -> Dict[str, Any]:
    """One half of the race.

    :param requests: of each client.
    :returns: how many requests there were, the failures by kind, and what the shim did.
    """
    with Server(idle_s=IDLE_S) as server:
        found: Dict[str, Any] = call(
            "bench.race:half", EVENTLET, at=server.at, shim=shim, requests=requests
        )
    return found


def half(at: Dict[str, Any], shim: bool, requests: int) -> Dict[str, Any]:
    """In the child: all clients, beside the busy crowd."""
    if shim:
        import stalepool  # noqa: F401  # installs itself
    import eventlet

    failures: Dict[str, int] = {}
    served = 0

    def be_client(number: int) -> None:
        nonlocal served
        pause = random.Random(number)
        pool = servers.pool(at)
        eventlet.sleep(pause.uniform(0, IDLE_S[1]))  # not all at once
        for _ in range(requests):
            try:
                assert pool.request("GET", "/", retries=False).status == 200
                served += 1
            except Exception as error:
                kind = type(error).__name__
                failures[kind] = failures.get(kind, 0) + 1
            eventlet.sleep(pause.uniform(*IDLE_S))

    with GreenCrowd(BUSY, WORK_S):
        for one in [eventlet.spawn(be_client, number) for number in range(CLIENTS)]:
            one.wait()
    return {"served": served, "failures": failures, "did": _what_the_shim_did() if shim else {}}


def _what_the_shim_did() -> Dict[str, Any]:
    import stalepool

    totals = stalepool.snapshot()["totals"]
    return {name: totals[name] for name in ("checkouts", "discards", "moved", "replays")}
