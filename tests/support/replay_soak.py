"""Thousands of requests, a hundred green threads, and a server that picks a fault at random.

The server lives in the test's process, on native threads; the client in one of its own. Which
fault a request meets is drawn from its id: the same each time, but for what the races make of it.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any, Dict, List, Set

import stalepool_testing as testing
from replay_tools import BODIES, ECHO, IDEMPOTENT, METHODS, NON_IDEMPOTENT
from stalepool_testing import AnswerStep, Close, Exchange, HalfStatusLine, Respond, Step, echo

GREEN_THREADS = 100
CONNECTIONS = 60  # fewer than threads: connections go from hand to hand
FAULTS_IN_A_HUNDRED = 12
TLS_IN_A_HUNDRED = 10

#: what may happen to any request on a reused connection, or behind its answer
FAULTS: List[Step] = [
    Close(),
    testing.Reset(),
    testing.ProcessThenClose(),
    testing.ProcessThenReset(),
    testing.CloseAfter(),
    testing.ResetAfter(),
    testing.FinWithin(0.005),
    testing.HalfCloseThenProcess(),
    testing.LingeringClose(linger_s=0.2),
    testing.SurplusWithAnswer(408, body=echo),
    Respond(200, echo, delay_s=0.02),
    Respond(200, echo, {"Keep-Alive": "timeout=1"}),
    Respond(503, echo),
]
#: errors as ever, whatever the method: only where an error is allowed
FATAL_FAULTS: List[Step] = [testing.HalfAnswer(), HalfStatusLine(), HalfStatusLine(reset=True)]


class PickFault(AnswerStep):
    """A fault at random, but for a connection's first request: who replays may rely on that.

    The journal has what was picked.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._have_answered: Set[int] = set()  # connections, by their numbers

    def answer(self, exchange: Exchange) -> None:
        channel = exchange.channel
        step = self._pick(exchange) if channel.number in self._have_answered else ECHO
        self._have_answered.add(channel.number)
        exchange.entry.step = step
        if isinstance(step, testing.IdleStep):
            ECHO.answer(exchange)
            if step.idle(channel) and channel.is_open:
                step.afterwards(channel)
        else:
            step.answer(exchange)

    def _pick(self, exchange: Exchange) -> Any:
        chance = random.Random(self._seed + exchange.request.request_id)
        if chance.random() >= FAULTS_IN_A_HUNDRED / 100:
            return ECHO
        is_idempotent = exchange.request.method in IDEMPOTENT
        return chance.choice(FAULTS if is_idempotent else FAULTS + FATAL_FAULTS)


def run_client(requests: int, seed: str, urls: List[str], ca_path: str) -> Dict[str, Any]:
    """Make the requests, in a process that ``worlds.enter("eventlet")`` has made green.

    :returns: ``lost``: idempotent requests without an answer. ``wrong``: answers to another
        request. ``failed``: ids of the others that ended in an error, by method. ``left_over``:
        descriptors, green threads and the hub's listeners that were not there before.
    """
    import eventlet
    import urllib3

    import stalepool

    def pool_to(url: str) -> Any:
        options = {"ca_certs": ca_path} if url.startswith("https") else {}
        return urllib3.connection_from_url(
            url, maxsize=CONNECTIONS, block=True, retries=False, timeout=30.0, **options
        )

    lost: List[List[str]] = []
    wrong: List[List[str]] = []
    failed: Dict[str, List[str]] = {method: [] for method in NON_IDEMPOTENT}

    def one_request(pool: Any, method: str, request_id: str) -> None:
        body, headers = BODIES.get(method), {"X-Request-Id": request_id}
        try:
            answer = pool.request(method, "/" + request_id, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            if method in IDEMPOTENT:
                lost.append([method, request_id, repr(error)])
            else:
                failed[method].append(request_id)
            return
        wanted = [method, request_id, (body or b"").decode()]
        if answer.status not in (200, 503) or said_by(answer.data) != wanted:
            wrong.append([method, request_id, "%s %r" % (answer.status, answer.data)])

    def green_thread(number: int) -> None:
        chance = random.Random("%s-%d" % (seed, number))
        for count in range(requests // GREEN_THREADS):
            pool = pools[chance.random() < TLS_IN_A_HUNDRED / 100]
            one_request(pool, chance.choice(METHODS), "%d-%d" % (number, count))
            eventlet.sleep(chance.expovariate(500))

    before = present()
    pools = [pool_to(url) for url in urls]
    threads = [eventlet.spawn(green_thread, number) for number in range(GREEN_THREADS)]
    while threads:
        threads.pop().wait()
    counters = stalepool.snapshot()["totals"]
    while pools:
        pools.pop().close()
    return {
        **{"lost": lost, "wrong": wrong, "failed": failed},
        **{"left_over": left_over(before), "counters": counters},
    }


def said_by(data: bytes) -> List[str]:
    said = json.loads(data)
    return [said["method"], said["request_id"], said["body"]]


def present() -> Dict[str, int]:
    """How many descriptors, green threads and listeners of the hub there are."""
    import gc
    import os

    import greenlet
    from eventlet import hubs

    gc.collect()
    hub = hubs.get_hub()
    green = [thing for thing in gc.get_objects() if isinstance(thing, greenlet.greenlet)]
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "green threads": sum(not thread.dead for thread in green),
        "listeners": len(hub.get_readers()) + len(hub.get_writers()),
    }


def left_over(before: Dict[str, int]) -> Dict[str, int]:
    return {name: count - before[name] for name, count in present().items() if count > before[name]}


def main() -> None:
    requests, seed, ca_path, *urls = sys.argv[1:]
    print(json.dumps(run_client(int(requests), seed, urls, ca_path)))
