"""A busy green-threaded worker: clients that reuse connections, and threads that keep them waiting.

Each client has a connection of its own and pauses about as long as the server keeps an idle one.
Under eventlet urllib3's own check of a pooled connection takes two iterations of the hub: a fifth
of a second here, in which the server may close what was just found alive.
"""

from __future__ import annotations

import random
import re
import statistics
import time
from collections import Counter
from typing import Any, Dict, List

import eventlet
import urllib3
from urllib3.exceptions import HTTPError

from stalepool.cli.demo.plan import BUSY, CLIENTS, PAUSE_S, SECONDS, WORK_S

_SEED = 2001


def run(url: str) -> Dict[str, Any]:
    """Send requests to the server of this URL until the time is over.

    :returns: the numbers of requests and failures, the commonest error's text, and the median of
        the latency in seconds. A client's first request does not count.
    """
    ends = time.monotonic() + SECONDS
    pause = random.Random(_SEED)
    latencies: List[float] = []
    failures: List[str] = []
    failures_at_first: List[str] = []

    def client() -> None:
        with urllib3.PoolManager(retries=False) as manager:
            eventlet.sleep(pause.uniform(0, PAUSE_S[1]))
            try:
                manager.request("GET", url)  # a fresh connection: it does not count
            except HTTPError as error:
                failures_at_first.append(_without_addresses(error))
                return
            while time.monotonic() < ends:
                eventlet.sleep(pause.uniform(*PAUSE_S))
                began = time.monotonic()
                try:
                    manager.request("GET", url)
                    latencies.append(time.monotonic() - began)
                except HTTPError as error:
                    failures.append(_without_addresses(error))

    def busy() -> None:
        while time.monotonic() < ends:
            until = time.monotonic() + WORK_S
            while time.monotonic() < until:
                pass
            eventlet.sleep(0)

    pool = eventlet.GreenPool(CLIENTS + BUSY)
    for _ in range(CLIENTS):
        pool.spawn(client)
    for _ in range(BUSY):
        pool.spawn(busy)
    pool.waitall()
    commonest = Counter(failures + failures_at_first).most_common(1)
    return {
        "requests": len(latencies) + len(failures),
        "failures": len(failures),
        "detail": "".join(text for text, _ in commonest),
        "median_s": statistics.median(latencies or [0.0]),
    }


def _without_addresses(error: HTTPError) -> str:
    """The text of an error without the address of an object, which no two have in common."""
    return re.sub(r"<[^<>]* object at 0x[0-9a-f]+>(: )?", "", str(error))
