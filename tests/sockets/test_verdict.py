"""Each verdict on a pooled connection, and what follows from it at the checkout."""

from __future__ import annotations

import functools
import logging
import socket
from typing import Any, Callable, Dict, NamedTuple

import pytest

import stalepool
from pools import (
    UnknownSocket,
    await_probe,
    counters,
    end_while_idle,
    get,
    pooled_connection,
    serving,
    shim,
    verdicts,
    wait_idle,
)
from replay_tools import reused
from socket_states import KINDS, STATES
from stalepool import stats
from stalepool.sockets.verdict import Verdict
from stalepool_testing import BlackHole, CloseAfter, ResetAfter, Surplus, into_pool, kernel


def performed(step: Any) -> Callable[[Any, Any], None]:
    return functools.partial(end_while_idle, step=step)


def send_in_vain(server: Any, pool: Any) -> None:
    """Until the kernel gives up."""
    server.perform(BlackHole())
    sock = pooled_connection(pool).sock
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
    sock.send(b"\0")
    kernel.wait_readable(sock, timeout_s=10, events=0)


def vanish(server: Any, pool: Any) -> None:
    stats.origin(server.origin).knowledge.note_probe_answered()
    server.perform(BlackHole())
    await_probe(pooled_connection(pool).sock)


def wrap(server: Any, pool: Any) -> None:
    conn = pooled_connection(pool)
    conn.sock = UnknownSocket(conn.sock)


class Scene(NamedTuple):
    """What happens to a connection that idles, and what becomes of it at its next checkout.

    ``is_discard``, ``is_death``: as which it is counted. ``stock_keeps``: it stays in audit.
    """

    happens: Callable[[Any, Any], None]
    is_kept: bool = False
    is_discard: bool = True
    is_death: bool = False
    stock_keeps: bool = False
    settings: Dict[str, Any] = {}


SCENES: Dict[Verdict, Scene] = {
    Verdict.ALIVE: Scene(lambda *_: None, is_kept=True, is_discard=False),
    Verdict.CLOSED: Scene(performed(CloseAfter(0)), is_death=True),
    Verdict.RESET: Scene(performed(ResetAfter(0)), is_death=True),
    Verdict.TIMED_OUT: Scene(send_in_vain, is_death=True),
    Verdict.UNREAD: Scene(performed(Surplus(408))),
    Verdict.PROBE_UNANSWERED: Scene(
        vanish, is_death=True, settings={"keepalive_idle_s": 1, "keepalive_interval_s": 1}
    ),
    Verdict.IDLE_TOO_LONG: Scene(
        lambda _, pool: wait_idle(pool, 0.05), stock_keeps=True, settings={"max_idle_s": 0.05}
    ),
    Verdict.NO_SOCKET: Scene(  # closed behind urllib3's back
        lambda _, pool: pooled_connection(pool).sock.close(), is_discard=False
    ),
    Verdict.UNKNOWN: Scene(wrap, is_kept=True, is_discard=False),
}


#: in audit, the request after these fails as in stock
FAILS_IN_AUDIT = (Verdict.PROBE_UNANSWERED, Verdict.NO_SOCKET)
CASES = [(verdict, "active") for verdict in SCENES] + [
    (verdict, "audit") for verdict in SCENES if verdict not in FAILS_IN_AUDIT
]


@pytest.mark.parametrize("verdict, mode", CASES, ids=lambda it: getattr(it, "value", it))
def test_what_follows_from_a_verdict(
    verdict: Verdict, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In audit the same is counted, and urllib3 decides."""
    scene = SCENES[verdict]
    caplog.set_level(logging.DEBUG, "stalepool.checkout")
    with shim(mode=mode, **scene.settings), reused() as (server, pool):
        scene.happens(server, pool)
        assert get(pool) == 200
        assert verdicts(server) == {verdict.value: 1}
        is_kept = scene.is_kept or (mode == "audit" and scene.stock_keeps)
        assert_it_followed(scene._replace(is_kept=is_kept), server)
        is_unknown = verdict is Verdict.UNKNOWN
        fallbacks = {"unknown_connection": 1} if is_unknown else {}
        assert stalepool.snapshot()["fallbacks"].items() <= fallbacks.items()
    said = [record.getMessage() for record in caplog.records]
    action = "discards" if mode == "active" else "would discard"
    lines = [line for line in said if "%s, %s, idle" % (action, verdict.value) in line]
    assert len(lines) == scene.is_discard


def test_bytes_of_an_earlier_record() -> None:
    """``TLS_PENDING``"""
    with shim(), serving(tls="TLSv1.3") as (server, pool), KINDS["tls1.3"].make() as pair:
        STATES["surplus in TLS"].enter(pair)
        into_pool(pool, pair.client)
        assert get(pool) == 200
        assert verdicts(server) == {"tls_pending": 1}
        assert_it_followed(SCENES[Verdict.UNREAD], server, connections=1)


def test_a_connection_of_the_parents(pretend_fork: Callable[[], None]) -> None:
    """``FOREIGN_PROCESS``"""
    with shim(), reused() as (server, pool):
        pretend_fork()
        assert get(pool) == 200
        assert verdicts(server) == {"foreign_process": 1}
        assert_it_followed(SCENES[Verdict.UNREAD], server)


def assert_it_followed(scene: Scene, server: Any, connections: int = 2) -> None:
    counted = counters(server)
    assert len(server.journal.connections) == (1 if scene.is_kept else connections)
    assert counted["discards"] == scene.is_discard
    assert sum(counted["died_idle_s"].values()) == scene.is_death


def test_each_verdict_has_a_scene() -> None:
    alone = {Verdict.TLS_PENDING, Verdict.FOREIGN_PROCESS}
    assert {*SCENES, *alone} == set(Verdict)
