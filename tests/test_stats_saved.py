"""The number of requests saved, held against what the same faults cost without the shim.

What was lost is read off the server's journal and what the caller got: an answer of another
request's is as lost as none.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

import pytest

import lanes
import stalepool
from gates import Gate
from pools import (
    DEFAULTS,
    await_arrival,
    await_probe,
    counters,
    pool_for,
    pooled_connection,
    shim,
    stock,
    wait_idle,
)
from replay_tools import ECHO, after_checkout, have, prime, send
from stalepool_testing import (
    TLS,
    BlackHole,
    Close,
    CloseAfter,
    FaultServer,
    ProcessThenClose,
    ProcessThenReset,
    Reset,
    Step,
    SurplusWithAnswer,
    echo,
    kernel,
)

ON = {**DEFAULTS, "keepalive_idle_s": 1}


class Fault(NamedTuple):
    """One request that stock loses; ``saved_as`` is None where the shim does not save it either."""

    method: str
    steps: Tuple[Step, ...]
    saved_as: Optional[str]
    arrange: Callable[[Any, Any, bool], None] = lambda server, pool, is_shim: None


def end_after_checkout(server: Any, pool: Any, is_shim: bool) -> None:
    after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))


def vanish(server: Any, pool: Any, is_shim: bool) -> None:
    """The peer answers a probe, and no more of them from then on."""
    if is_shim:
        wait_idle(pool, 1.2)
        prime(pool)
    server.perform(BlackHole())
    if is_shim:
        await_probe(pooled_connection(pool).sock)


FAULTS = {
    "closed as it arrives": Fault("GET", (Close(),), "replayed"),
    "reset as it arrives": Fault("DELETE", (Reset(),), "replayed"),
    "processed and closed": Fault("PUT", (ProcessThenClose(),), "replayed"),
    "a POST, closed": Fault("POST", (Close(),), None),
    "a POST, processed": Fault("POST", (ProcessThenReset(),), None),
    "after the checkout": Fault("GET", (), "kept_off", end_after_checkout),
    "a POST, after the checkout": Fault("POST", (), "kept_off", end_after_checkout),
    "silent": Fault("GET", (), "kept_off", vanish),
    "a POST, silent": Fault("POST", (), "kept_off", vanish),
}


@contextlib.contextmanager
def meeting(fault: Fault) -> Iterator[Tuple[Any, Any]]:
    with FaultServer([ECHO, *fault.steps], default=ECHO) as server:
        with pool_for(server) as pool:
            prime(pool)
            yield server, pool


def is_lost(server: Any, pool: Any, fault: Fault, is_shim: bool) -> bool:
    fault.arrange(server, pool, is_shim)
    outcome = send(server, pool, fault.method, timeout=1.5)
    if fault.method == "POST":
        assert outcome.processed <= 1
    return outcome.status != 200 or not outcome.is_own_answer


@pytest.mark.parametrize("name", FAULTS)
def test_stock_loses_the_request(name: str) -> None:
    fault = FAULTS[name]
    with stock(), meeting(fault) as (server, pool):
        assert is_lost(server, pool, fault, False)


@pytest.mark.parametrize("name", lanes.first(len(FAULTS) - 1, FAULTS))
def test_what_is_saved_is_counted(name: str) -> None:
    """What stock survives as well is not: ``test_checkout``."""
    fault = FAULTS[name]
    with shim(**ON), meeting(fault) as (server, pool):
        assert is_lost(server, pool, fault, True) is (fault.saved_as is None)
        saved = counters(server)["saved"]
    assert {how: number for how, number in saved.items() if number} == (
        {} if fault.saved_as is None else {fault.saved_as: 1}
    )


@pytest.mark.usefixtures("small_reads")
def test_an_answer_of_another_request_over_tls() -> None:
    """It lies in the TLS layer, and urllib3 alone hands it to whoever comes next."""
    tls = TLS("TLSv1.3")

    def lost() -> Tuple[bool, Dict[str, int]]:
        with FaultServer([SurplusWithAnswer(408, body=echo)], tls=tls, default=ECHO) as server:
            with pool_for(server, tls) as pool:
                prime(pool)
                outcome = send(server, pool, "GET")
                return outcome.status != 200, dict(counters(server).get("saved", {}))

    with stock():
        assert lost()[0]
    with shim(**ON):
        assert lost() == (False, {"replayed": 0, "kept_off": 1, "reconnected": 0})


def test_a_listener_that_is_away_for_a_moment() -> None:
    def lost() -> bool:
        with FaultServer(default=ECHO) as server, Gate(server) as gate, pool_for(gate) as pool:
            prime(pool)
            gate.shut()
            await_arrival(pool)
            back = threading.Timer(0.1, gate.open)
            back.start()
            try:
                outcome = send(server, pool, "POST", timeout=5.0)
            finally:
                back.join()
            return outcome.status != 200

    with stock():
        assert lost()
    with shim(**ON):
        assert not lost()
        saved = stalepool.snapshot()["totals"]["saved"]
    assert saved == {"replayed": 0, "kept_off": 0, "reconnected": 1}


def test_audit_saves_nothing() -> None:
    for name, fault in FAULTS.items():
        if "silent" in name or fault.saved_as is None:
            continue
        with shim(**ON, mode="audit"), meeting(fault) as (server, pool):
            assert is_lost(server, pool, fault, True)
            assert not any(stalepool.snapshot()["totals"]["saved"].values())
