"""Each rule of the three tables is needed: without it a request on a real socket goes wrong."""

from __future__ import annotations

import socket
import threading
from time import monotonic
from typing import Any, Callable, Dict, Iterator

import pytest

from breaks import breaks
from pools import (
    break_while_idle,
    counters,
    get,
    pool_for,
    pooled_connection,
    serving,
    shim,
    wait_idle,
)
from replay_tools import ECHO, CloseLate, after_checkout, have, prime, reused, send
from stalepool import stats
from stalepool.connection import request_rules
from stalepool_testing import (
    Close,
    CloseAfter,
    FaultServer,
    ProcessThenClose,
    ProcessThenReset,
    Reset,
    ResetAfter,
    Respond,
    Silence,
    kernel,
)


def is_asked_once(outcome: Any) -> bool:
    return outcome.error is not None and outcome.arrivals == 1


# -- may it be sent again? -----------------------------------------------------------------------


def an_operator_who_switched_replay_off() -> bool:
    """An ``Idempotency-Key`` would let any method through, had the setting no rule of its own."""
    with shim(replay="off"), reused(Reset()) as (server, pool):
        return is_asked_once(send(server, pool, "POST", headers={"Idempotency-Key": "k"}))


def a_server_that_fails_first_requests() -> bool:
    """It is down, not idle: a connection that never answered has nothing to be stale of."""
    with shim(replay="idempotent"), FaultServer([Close()], default=ECHO) as server, pool_for(
        server
    ) as pool:
        return is_asked_once(send(server, pool, "GET"))


def a_server_that_fails_every_time() -> bool:
    """The send into a dead connection is made good by a replay, whose answer does not come."""
    with shim(replay="idempotent"), reused(default=Close()) as (server, pool):
        after_checkout(pool, have(server, ResetAfter(), kernel.POLLRDHUP))
        return is_asked_once(send(server, pool, "GET"))


def a_body_that_ends_early() -> bool:
    """urllib3 takes what reading it raises for the connection's end, and waits for an answer. A
    second try would promise as much as the first, and send as little.
    """

    def body() -> Iterator[bytes]:
        yield b"half of it"
        raise BrokenPipeError

    with shim(replay="idempotent"), reused(default=Close()) as (server, pool):
        return is_asked_once(
            send(server, pool, "PUT", body=body(), headers={"Content-Length": "20"})
        )


def an_operator_whose_puts_add_up() -> bool:
    """The server acted on it, and then the connection died. A POST would not be on record, too."""
    with shim(replay="safe"), reused(ProcessThenReset()) as (server, pool):
        return send(server, pool, "PUT").processed == 1


def an_update_of_a_known_version() -> bool:
    """The first try changed the version: a second one would be told 412, and it was done."""
    with shim(replay="idempotent"), reused(ProcessThenClose()) as (server, pool):
        return send(server, pool, "PUT", headers={"If-Match": '"7"'}).processed == 1


def a_dialogue() -> bool:
    """A client that waits for ``100 Continue`` decides itself what it sends again."""
    with shim(replay="idempotent"), reused(Close()) as (server, pool):
        return is_asked_once(send(server, pool, "DELETE", headers={"Expect": "100-continue"}))


def a_nonce() -> bool:
    """The server has seen the signature's nonce: a second try would be told 401."""
    with shim(replay="idempotent"), reused(Close()) as (server, pool):
        headers = {"Authorization": 'OAuth oauth_nonce="x"'}
        return is_asked_once(send(server, pool, "GET", headers=headers))


def a_connection_that_has_logged_in() -> bool:
    """Another one would not be who this one is."""
    with shim(replay="idempotent"), reused(ECHO, Close()) as (server, pool):
        assert send(server, pool, "GET", headers={"Authorization": "NTLM x"}).status == 200
        return is_asked_once(send(server, pool, "GET"))


#: rule -> what goes wrong without it
REPLAYS: Dict[str, Callable[[], bool]] = {
    "switched_off": an_operator_who_switched_replay_off,
    "fresh_connection": a_server_that_fails_first_requests,
    "replayed_before": a_server_that_fails_every_time,
    "method": an_operator_whose_puts_add_up,
    "precondition": an_update_of_a_known_version,
    "dialogue": a_dialogue,
    "credential": a_nonce,
    "identity": a_connection_that_has_logged_in,
    "body": a_body_that_ends_early,
}


# -- had the connection died? --------------------------------------------------------------------


def another_thread_that_gives_up() -> bool:
    """It ended the connection itself, so that the request comes to an end."""
    with shim(replay="idempotent"), reused(Silence()) as (server, pool):
        sock = pooled_connection(pool).sock

        def give_up() -> None:
            server.wait_request(2)
            sock.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=give_up)
        thread.start()
        outcome = send(server, pool, "GET")
        thread.join()
        return is_asked_once(outcome)


def a_request_that_kills_its_worker() -> bool:
    """The server had it for a while, and closed: it would do so again."""
    with shim(replay="idempotent", replay_within_s=0.1), reused(CloseLate(seconds=0.5)) as (
        server,
        pool,
    ):
        return is_asked_once(send(server, pool, "GET"))


DEATHS = {
    "not_ended": another_thread_that_gives_up,
    "peer_had_it": a_request_that_kills_its_worker,
}


# -- may it ride an idle connection? -------------------------------------------------------------


def rides(server: Any, pool: Any, reason: str) -> bool:
    """Send a POST: does it take a fresh connection, for this reason?"""
    before = len(server.journal.connections)
    assert send(server, pool, "POST").status == 200
    is_counted = counters(server)["moved"] == {reason: 1}
    return is_counted and len(server.journal.connections) == before + 1


def an_operator_who_wants_no_idle_connection() -> bool:
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        return rides(server, pool, "idle_setting")


def a_server_that_announces_a_second() -> bool:
    hint = {"Keep-Alive": "timeout=1"}
    with shim(nonidempotent_max_idle_s="auto"), FaultServer(
        [Respond(200, headers=hint)], default=ECHO
    ) as server, pool_for(server) as pool:
        prime(pool)
        wait_idle(pool, 0.8)
        return rides(server, pool, "announced_limit")


def a_server_that_has_closed_three_at_the_same_age() -> bool:
    """Two of them a minute ago."""
    script = [ECHO, CloseAfter(1.1)]
    with shim(nonidempotent_max_idle_s="auto"), serving(script, default=ECHO) as (server, pool):
        knowledge = stats.origin(server.origin).knowledge
        knowledge._fins = ((monotonic() - 60, 1.3),) * 2
        break_while_idle(server, pool)
        assert get(pool) == 200
        wait_idle(pool, 1.0)
        return rides(server, pool, "observed_limit")


MOVES = {
    "idle_setting": an_operator_who_wants_no_idle_connection,
    "announced_limit": a_server_that_announces_a_second,
    "observed_limit": a_server_that_has_closed_three_at_the_same_age,
}


# -- each rule of each table ---------------------------------------------------------------------

TABLES = {"REPLAY_RULES": REPLAYS, "DEATH_RULES": DEATHS, "MOVE_REASONS": MOVES}
EVERY_RULE = [(table, rule) for table, scenarios in TABLES.items() for rule in scenarios]


def name_of(rule: Any) -> str:
    """A rule's name in the counters: what it is refused for, or moved for."""
    return str(rule[0])


@pytest.mark.parametrize("table", TABLES)
def test_every_rule_has_a_scenario(table):
    assert list(TABLES[table]) == [name_of(rule) for rule in getattr(request_rules, table)]


def test_a_limit_is_learnt_from_the_ends_of_connections():
    """No other test has an observed limit on a real socket."""
    assert a_server_that_has_closed_three_at_the_same_age()


@pytest.mark.full
@pytest.mark.parametrize(("table", "name"), EVERY_RULE, ids=["%s, %s" % row for row in EVERY_RULE])
def test_without_the_rule_it_goes_wrong(table, name):
    scenario, rules = TABLES[table][name], getattr(request_rules, table)
    assert scenario()
    others = tuple(rule for rule in rules if name_of(rule) != name)
    assert len(others) == len(rules) - 1
    with breaks(table, by=others):
        assert not scenario()
