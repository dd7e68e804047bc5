"""Is every rule of the table needed? Each is taken out in turn, and a request on a real socket
then goes wrong that went right with it.
"""

from __future__ import annotations

import signal
from typing import Any, Callable, Dict, Iterator

import pytest
from urllib3.util import Timeout

from pools import counters, pool_for, shim
from replay_tools import ECHO, kind_of, reused, send
from stalepool import replay
from stalepool.testing import (
    Close,
    FaultServer,
    HalfStatusLine,
    ProcessThenClose,
    ProcessThenReset,
    Reset,
)
from test_replay import CloseLate, Interrupt


def an_operator_who_switched_replay_off() -> bool:
    """An ``Idempotency-Key`` would let any method through, had the setting no rule of its own."""
    with shim(replay="off"), reused(Reset()) as (server, pool):
        outcome = send(server, pool, "POST", headers={"Idempotency-Key": "k"})
        return outcome.error is not None and outcome.arrivals == 1


def a_server_that_fails_first_requests() -> bool:
    """It is down, not idle: a connection that never answered has nothing to be stale of."""
    with shim(replay="idempotent"), FaultServer([Close()], default=ECHO) as server, pool_for(
        server
    ) as pool:
        outcome = send(server, pool, "GET")
        return outcome.error is not None and outcome.arrivals == 1


def an_answer_that_breaks_off() -> bool:
    """The RST behind half a status line is the connection's failure, but not before the answer."""
    with shim(replay="idempotent"), reused(HalfStatusLine(reset=True)) as (server, pool):
        outcome = send(server, pool, "PUT")
        return outcome.error is not None and outcome.processed == 1


class Alarm(Exception):
    pass


def an_application_with_an_alarm_clock() -> bool:
    """It gave up on the request: that is no failure of the connection's."""

    def ring(*args: Any) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise Alarm

    before = signal.signal(signal.SIGUSR1, ring)
    try:
        with shim(replay="idempotent"), reused(Interrupt()) as (server, pool):
            outcome = send(server, pool, "GET")
            return outcome.arrivals == 1 and isinstance(outcome.error, Alarm)
    finally:
        signal.signal(signal.SIGUSR1, before)


def a_body_that_can_be_read_once() -> bool:
    """A second try would send what is left of it: nothing, and be answered for it."""

    def parts() -> Iterator[bytes]:
        yield b"all there is"

    with shim(replay="idempotent"), reused(Close()) as (server, pool):
        send(server, pool, "PUT", body=parts())
        return [entry.body for entry in server.journal.processed("PUT")] in ([], [b"all there is"])


def a_dialogue() -> bool:
    """A client that waits for ``100 Continue`` decides itself what it sends again."""
    with shim(replay="idempotent"), reused(Close()) as (server, pool):
        outcome = send(server, pool, "PUT", headers={"Expect": "100-continue"})
        return outcome.error is not None and outcome.arrivals == 1


def a_payment() -> bool:
    """The server acted on it, and then the connection died."""
    with shim(replay="idempotent"), reused(ProcessThenReset()) as (server, pool):
        return send(server, pool, "POST").processed == 1


def an_update_of_a_known_version() -> bool:
    """The first try changed the version: a second one would be told 412, and it was done."""
    with shim(replay="idempotent"), reused(ProcessThenClose()) as (server, pool):
        return send(server, pool, "PUT", headers={"If-Match": '"7"'}).processed == 1


def a_caller_whose_time_is_up() -> bool:
    """Nothing can be sent in no time, so it is refused, and not tried and failed."""
    body = b"x" * 30_000_000  # more than both kernels hold: sending it takes as long as the server
    with shim(replay="idempotent"), reused(CloseLate(seconds=0.4)) as (server, pool):
        outcome = send(server, pool, "PUT", body=body, timeout=Timeout(connect=30, read=0.2))
        counted = counters(server)
        return kind_of(outcome.error) == "connection" and (
            counted["replays"],
            counted["replays_refused"],
        ) == ({}, {"no_time_left": 1})


#: rule -> what goes wrong without it
SCENARIOS: Dict[str, Callable[[], bool]] = {
    "switched_off": an_operator_who_switched_replay_off,
    "fresh_connection": a_server_that_fails_first_requests,
    "answer_began": an_answer_that_breaks_off,
    "other_failure": an_application_with_an_alarm_clock,
    "body": a_body_that_can_be_read_once,
    "framing": a_dialogue,
    "method": a_payment,
    "precondition": an_update_of_a_known_version,
    "no_time_left": a_caller_whose_time_is_up,
}


def test_every_rule_has_a_scenario():
    assert list(SCENARIOS) == [rule.refusal for rule in replay.RULES]


@pytest.mark.parametrize("refusal", SCENARIOS)
def test_with_the_rule_it_goes_right(refusal):
    assert SCENARIOS[refusal]()


@pytest.mark.parametrize("refusal", SCENARIOS)
def test_without_the_rule_it_goes_wrong(refusal, monkeypatch):
    others = tuple(rule for rule in replay.RULES if rule.refusal != refusal)
    assert len(others) == len(replay.RULES) - 1
    monkeypatch.setattr(replay, "RULES", others)
    assert not SCENARIOS[refusal]()


@pytest.mark.parametrize("refusal", SCENARIOS)
def test_no_other_rule_makes_up_for_it(refusal, monkeypatch):
    """The other way round: the scenario needs this rule and no other."""
    alone = tuple(rule for rule in replay.RULES if rule.refusal == refusal)
    monkeypatch.setattr(replay, "RULES", alone)
    assert SCENARIOS[refusal]()
