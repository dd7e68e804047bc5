"""Each verdict on a pooled connection, and what follows from it at the checkout."""

import logging
import socket

import pytest

import pools
import stalepool
from pools import counters, end_while_idle, get, pooled_connection, shim, verdicts, wait_idle
from replay_tools import reused
from stalepool.sockets.verdict import Verdict
from stalepool_testing import BlackHole, CloseAfter, ResetAfter, Surplus, SurplusWithAnswer, kernel


def send_in_vain(server, pool):
    """Until the kernel gives up."""
    server.perform(BlackHole())
    sock = pooled_connection(pool).sock
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
    sock.send(b"\0")
    kernel.wait_readable(sock, timeout_s=10, events=0)


def wrap(server, pool):
    conn = pooled_connection(pool)
    conn.sock = pools.UnknownSocket(conn.sock)


#: what happens to a connection that idles; a fork, where it is nothing
HAPPENS = {
    Verdict.ALIVE: lambda *_: None,
    Verdict.CLOSED: lambda *idle: end_while_idle(*idle, CloseAfter(0)),
    Verdict.RESET: lambda *idle: end_while_idle(*idle, ResetAfter(0)),
    Verdict.TIMED_OUT: send_in_vain,
    Verdict.UNREAD: lambda *idle: end_while_idle(*idle, Surplus(408)),
    Verdict.TLS_PENDING: lambda _, pool: get(pool),  # it brings a second answer along
    Verdict.IDLE_TOO_LONG: lambda _, pool: wait_idle(pool, 0.05),
    Verdict.FOREIGN_PROCESS: None,
    Verdict.NO_SOCKET: lambda _, pool: pooled_connection(pool).sock.close(),  # behind its back
    Verdict.UNKNOWN: wrap,
}
SETTINGS = {Verdict.IDLE_TOO_LONG: {"max_idle_s": 0.05}, Verdict.UNKNOWN: {"falls_back": True}}
#: it stays; stock keeps it, and so does audit; it is not counted as a discard; it is as a death
KEPT = (Verdict.ALIVE, Verdict.UNKNOWN)
KEPT_BY_STOCK = (*KEPT, Verdict.IDLE_TOO_LONG, Verdict.FOREIGN_PROCESS)
NO_DISCARD = (*KEPT, Verdict.NO_SOCKET)
DEATHS = (Verdict.CLOSED, Verdict.RESET, Verdict.TIMED_OUT)
#: in audit, the request after these fails as in stock
FAILS_IN_AUDIT = (Verdict.NO_SOCKET, Verdict.TLS_PENDING)

CASES = [(verdict, "active") for verdict in Verdict] + [
    (verdict, "audit") for verdict in Verdict if verdict not in FAILS_IN_AUDIT
]


@pytest.mark.usefixtures("small_reads")
@pytest.mark.parametrize("verdict, mode", CASES, ids=lambda it: getattr(it, "value", it))
def test_what_follows_from_a_verdict(verdict, mode, caplog, pretend_fork):
    """In audit the same is counted, and urllib3 decides."""
    assert verdict.value == verdict.name.lower() and verdict.meaning
    caplog.set_level(logging.DEBUG, "stalepool.checkout")
    is_pending = verdict is Verdict.TLS_PENDING
    steps, tls = ([SurplusWithAnswer()], "TLSv1.3") if is_pending else ([], None)
    with shim(mode=mode, **SETTINGS.get(verdict, {})), reused(*steps, tls=tls) as (server, pool):
        pretend_fork() if HAPPENS[verdict] is None else HAPPENS[verdict](server, pool)
        assert get(pool) == 200
        assert verdicts(server) == {**({"alive": 1} if is_pending else {}), verdict.value: 1}
        is_kept = verdict in (KEPT if mode == "active" else KEPT_BY_STOCK)
        assert len(server.journal.connections) == (1 if is_kept else 2)
        counted = counters(server)
        assert counted["discards"] == (verdict not in NO_DISCARD)
        assert sum(counted["died_idle_s"].values()) == (verdict in DEATHS)
        fallbacks = {"unknown_connection": 1} if verdict is Verdict.UNKNOWN else {}
        assert stalepool.snapshot()["fallbacks"].items() <= fallbacks.items()
    said = [record.getMessage() for record in caplog.records]
    action = "discards" if mode == "active" else "would discard"
    lines = [line for line in said if "%s, %s, " % (action, verdict.value) in line]
    assert len(lines) == (verdict not in NO_DISCARD)
