"""A busy green-threaded worker whose clients reuse connections; prints what became of them.

Every client has a connection of its own and pauses as long as the server's
idle times last, so that many connections are closed just when they are wanted.

Arguments: ``HOST:PORT PLAN``, the plan as JSON.
"""

from __future__ import annotations

from stalepool.cli.demo import green  # isort: skip

import json
import random
import re
import sys
import time
from collections import Counter
from typing import Any, Dict, List

import eventlet
import urllib3
from urllib3.exceptions import HTTPError

from stalepool.cli.demo.processes import to_address

_SEED = 2001


class Worker:
    """The clients, the green threads that keep them waiting, and the tally."""

    def __init__(self, address: str, plan: Dict[str, Any]) -> None:
        self._host, self._port = to_address(address)
        self._plan = plan
        self._random = random.Random(_SEED)
        self._ends = time.monotonic() + plan["seconds"]
        self.errors: Counter[str] = Counter()
        self.failures = 0
        self.latencies: List[float] = []

    def run(self) -> None:
        """Work until the time is over and all clients have come home."""
        pool = eventlet.GreenPool(self._plan["clients"] + self._plan["busy"])
        for _ in range(self._plan["clients"]):
            pool.spawn(self._client)
        for _ in range(self._plan["busy"]):
            pool.spawn(self._busy)
        pool.waitall()

    def _client(self) -> None:
        with urllib3.HTTPConnectionPool(self._host, self._port, maxsize=1) as connections:
            eventlet.sleep(self._random.uniform(0, self._plan["max_pause_s"]))
            try:
                connections.request("GET", "/", retries=False)  # a fresh one does not count
            except HTTPError as error:
                self.errors[plain(error)] += 1
                return
            while time.monotonic() < self._ends:
                eventlet.sleep(
                    self._random.uniform(self._plan["min_pause_s"], self._plan["max_pause_s"])
                )
                self._request(connections)

    def _request(self, connections: urllib3.HTTPConnectionPool) -> None:
        began = time.monotonic()
        try:
            connections.request("GET", "/", retries=False)
        except HTTPError as error:
            self.errors[plain(error)] += 1
            self.failures += 1
        else:
            self.latencies.append(time.monotonic() - began)

    def _busy(self) -> None:
        while time.monotonic() < self._ends:
            until = time.monotonic() + self._plan["work_s"]
            while time.monotonic() < until:
                pass
            eventlet.sleep(0)


def plain(error: HTTPError) -> str:
    """The text of an error without the address of an object, which no two have in common."""
    return re.sub(r"<[^<>]* object at 0x[0-9a-f]+>(: )?", "", str(error))


def percentile(ordered: List[float], percent: int) -> float:
    """A percentile of values in ascending order, 0.0 if there are none."""
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] if ordered else 0.0


def main(arguments: List[str]) -> None:
    """Run the worker; print one JSON object."""
    address, plan = arguments
    worker = Worker(address, json.loads(plan))
    worker.run()
    latencies = sorted(worker.latencies)
    result = {
        "shim": green.shim_is_active(),
        "requests": len(latencies) + worker.failures,
        "failures": worker.failures,
        "detail": "".join(text for text, _ in worker.errors.most_common(1)),
        "p50_s": percentile(latencies, 50),
        "p99_s": percentile(latencies, 99),
        **green.counters(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
