"""The number of requests saved, held against what the same faults cost without the shim.

What was lost is read off what the caller got: an answer of another request's is as lost as none.
The faults that a single request meets are in ``connection/test_replay_matrix``.
"""

from __future__ import annotations

from typing import Dict, Tuple

import pytest

import stalepool
from outages import outage
from pools import (
    DEFAULTS,
    await_probe,
    counters,
    pool_for,
    pooled_connection,
    shim,
    stock,
    wait_idle,
)
from replay_tools import ECHO, after_checkout, have, prime, reused, send
from stalepool_testing import (
    TLS,
    BlackHole,
    Close,
    CloseAfter,
    FaultServer,
    SurplusWithAnswer,
    echo,
    kernel,
)

ON = {**DEFAULTS, "keepalive_idle_s": 1}


@pytest.mark.parametrize("method", ["GET", pytest.param("POST", marks=pytest.mark.full)])
def test_a_peer_that_falls_silent(method: str) -> None:
    """It answers a probe, and no more of them from then on."""
    with stock(), reused() as (server, pool):
        server.perform(BlackHole())
        assert send(server, pool, method, timeout=1.5).error is not None
    with shim(**ON), reused() as (server, pool):
        wait_idle(pool, 1.2)
        prime(pool)
        server.perform(BlackHole())
        await_probe(pooled_connection(pool).sock)
        assert send(server, pool, method, timeout=1.5)[:2] == (200, True)
        assert counters(server)["saved"] == {"replayed": 0, "kept_off": 1, "reconnected": 0}


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
    """Stock loses it: ``connection/test_connect``."""
    with outage(window_s=5, back_in_s=0.1) as way:
        assert way.send("POST") == 200
        saved = stalepool.snapshot()["totals"]["saved"]
    assert saved == {"replayed": 0, "kept_off": 0, "reconnected": 1}


def test_audit_saves_nothing() -> None:
    with shim(**ON, mode="audit"), reused(Close()) as (server, pool):
        assert send(server, pool, "GET").error is not None
        prime(pool)
        after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
        assert send(server, pool, "GET").error is not None
        assert not any(stalepool.snapshot()["totals"]["saved"].values())
