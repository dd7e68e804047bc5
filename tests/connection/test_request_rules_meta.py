"""Each rule of the three tables is needed: without it a request on a real socket goes wrong."""

from __future__ import annotations

import socket
import threading
from time import monotonic
from typing import Any, Callable, Dict, Iterator, NamedTuple, Sequence

import pytest

from breaks import breaks
from pools import break_while_idle, counters, get, pooled_connection, shim, wait_idle
from replay_tools import ECHO, CloseLate, after_checkout, have, prime, reused, send
from stalepool import stats
from stalepool.connection import request_rules
from stalepool_testing import Close, CloseAfter, ResetAfter, Respond, Silence, Step, kernel


def nothing(server: Any, pool: Any) -> None:
    pass


class Case(NamedTuple):
    """A request that goes wrong without a rule.

    ``steps``: what the server does after the priming answers, of which there are ``times``.
    ``act``: what is done to (server, pool) before the request.
    """

    method: str = "GET"
    headers: Dict[str, str] = {}
    settings: Dict[str, Any] = {}
    steps: Sequence[Step] = ()
    act: Callable[[Any, Any], None] = nothing
    times: int = 1
    body: Callable[[], Any] = lambda: None


def reset_after_checkout(server: Any, pool: Any) -> None:
    """The send into a dead connection is made good by a replay, whose answer does not come."""
    after_checkout(pool, have(server, ResetAfter(), kernel.POLLRDHUP))


def half_a_body() -> Iterator[bytes]:
    """urllib3 takes what reading it raises for the connection's end, and waits for an answer. A
    second try would promise as much as the first, and send as little.
    """
    yield b"half of it"
    raise BrokenPipeError


#: of a request that is not answered, and must come to the server once
REPLAYS = {
    # a key would let any method through, had the setting no rule of its own
    "switched_off": Case("POST", {"Idempotency-Key": "k"}, {"replay": "off"}),
    "fresh_connection": Case(times=0),
    "replayed_before": Case(act=reset_after_checkout),
    "method": Case("PUT", settings={"replay": "safe"}),
    "precondition": Case("PUT", {"If-Match": '"7"'}),
    "dialogue": Case("DELETE", {"Expect": "100-continue"}),
    "credential": Case(headers={"Authorization": 'OAuth oauth_nonce="x"'}),
    "identity": Case(headers={"Authorization": "NTLM x"}),
    "body": Case("PUT", {"Content-Length": "20"}, body=half_a_body),
}


def give_up_meanwhile(server: Any, pool: Any) -> None:
    """Another thread ends the connection itself, so that the request comes to an end."""
    sock = pooled_connection(pool).sock

    def give_up() -> None:
        server.wait_request(2)
        sock.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=give_up).start()


#: the same
DEATHS = {
    "not_ended": Case(steps=[Silence()], act=give_up_meanwhile),
    "peer_had_it": Case(settings={"replay_within_s": 0.1}, steps=[CloseLate(seconds=0.5)]),
}


def near_the_announced_limit(server: Any, pool: Any) -> None:
    prime(pool)
    wait_idle(pool, 0.8)


def near_the_observed_limit(server: Any, pool: Any) -> None:
    """The server has closed three at the same age, two of them a minute ago."""
    stats.origin(server.origin).knowledge._fins = ((monotonic() - 60, 1.3),) * 2
    break_while_idle(server, pool, healthy_requests=0)
    assert get(pool) == 200
    wait_idle(pool, 1.0)


HINT = Respond(headers={"Keep-Alive": "timeout=1"})

#: of a POST that must take a fresh connection
MOVES = {
    "idle_setting": Case("POST", settings={"nonidempotent_max_idle_s": 0}),
    "announced_limit": Case("POST", steps=[HINT], act=near_the_announced_limit),
    "observed_limit": Case("POST", steps=[CloseAfter(1.1)], act=near_the_observed_limit),
}

TABLES = {"REPLAY_RULES": REPLAYS, "DEATH_RULES": DEATHS, "MOVE_REASONS": MOVES}
EVERY_RULE = [(table, rule) for table, cases in TABLES.items() for rule in cases]


def goes_well(table: str, name: str) -> bool:
    case = TABLES[table][name]
    settings = {"replay": "idempotent", "nonidempotent_max_idle_s": "auto", **case.settings}
    default = ECHO if table == "MOVE_REASONS" else Close()
    with shim(**settings), reused(*case.steps, default=default, times=case.times) as (server, pool):
        case.act(server, pool)
        outcome = send(server, pool, case.method, headers=case.headers, body=case.body())
        if table == "MOVE_REASONS":
            return bool(counters(server)["moved"] == {name: 1})
        return outcome.error is not None and outcome.arrivals == 1


@pytest.mark.parametrize("table", TABLES)
def test_every_rule_has_a_case(table):
    assert list(TABLES[table]) == [rule.name for rule in getattr(request_rules, table)]


def test_a_limit_is_learnt_from_the_ends_of_connections():
    """No other test has an observed limit on a real socket."""
    assert goes_well("MOVE_REASONS", "observed_limit")


@pytest.mark.full
@pytest.mark.parametrize(("table", "name"), EVERY_RULE, ids=["%s, %s" % row for row in EVERY_RULE])
def test_without_the_rule_it_goes_wrong(table, name):
    rules = getattr(request_rules, table)
    assert goes_well(table, name)
    others = tuple(rule for rule in rules if rule.name != name)
    assert len(others) == len(rules) - 1
    with breaks(table, by=others):
        assert not goes_well(table, name)
