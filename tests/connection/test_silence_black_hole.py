"""A request whose connection has become a black hole, and which nobody else answers either.

The caller's own limit ends it, as in stock. Requests that are sent again: ``test_silence``.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple

import pytest
from urllib3.exceptions import HTTPError

from delayed_answers import ReadThenBlackHole
from gates import Gate
from pools import counters, get, pool_for, shim
from stalepool_testing import FaultServer, Respond, Silence

#: the least there is of everything
HASTY = {
    "replay": "idempotent",
    "silence_s": 1,
    "keepalive_idle_s": 1,
    "keepalive_interval_s": 1,
}
#: the caller's read timeout: in its first half the peer is found to be dead
LIMIT_S = 10.0


class Outcome(NamedTuple):
    """How a request ended; ``arrived``: the numbers of the connections on which it came."""

    end: Any
    took_s: float
    arrived: List[int]
    replays: Dict[str, int]


def outcome(server: FaultServer, origin: Any, pool: Any) -> Outcome:
    before, began = len(server.journal), time.monotonic()
    try:
        end: Any = get(pool)
    except HTTPError as error:
        end = type(error).__name__
    took_s = time.monotonic() - began
    arrived = [entry.connection for entry in list(server.journal)[before:]]
    return Outcome(end, took_s, arrived, counters(origin)["replays"])


def nobody_answers() -> Outcome:
    """The fresh connection is accepted, and the request read; that is all."""
    script = [Respond(200), ReadThenBlackHole()]
    with FaultServer(script, default=Silence()) as server:
        with pool_for(server, timeout=LIMIT_S) as pool:
            assert get(pool) == 200
            return outcome(server, server, pool)


def nobody_listens() -> Outcome:
    """The listener has gone as well: a fresh connection is refused."""
    with FaultServer() as server, Gate(server) as gate, pool_for(gate, timeout=LIMIT_S) as pool:
        assert get(pool) == 200
        gate.swallow()
        gate.stop_listening()
        return outcome(server, gate, pool)


def side_by_side(*calls: Callable[[], Outcome]) -> List[Outcome]:
    outcomes: List[Any] = [None] * len(calls)

    def run(number: int) -> None:
        outcomes[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@pytest.mark.full
def test_the_callers_limit_ends_it():
    """With the first attempt's error, and after no more than one attempt was allowed to take."""
    with shim(**HASTY):
        unanswered, refused = side_by_side(nobody_answers, nobody_listens)
    for seen in unanswered, refused:
        assert seen.end == "ReadTimeoutError", seen
        assert LIMIT_S <= seen.took_s < LIMIT_S + 3, seen
    assert (unanswered.arrived, unanswered.replays) == ([0, 2], {"failed": 1})
    assert (refused.arrived, refused.replays) == ([], {})
