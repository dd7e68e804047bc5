"""The faults that urllib3 survives by itself: with the shim in its place they must stay survived.

The one table says why each is tested all the same. What stock does not survive is in the modules
named after the fault.
"""

from __future__ import annotations

import io
import json
import socket
from typing import List, NamedTuple, Optional

import pytest

from pools import break_while_idle, counters, pool_for, serving, shim, stock, verdicts
from stalepool.sockets.verdict import Verdict
from stalepool_testing import (
    TLS,
    CloseAfter,
    FaultServer,
    HalfCloseAfter,
    LingeringClose,
    ResetAfter,
    Respond,
    RespondThenClose,
    Step,
    Surplus,
    SurplusWithAnswer,
    echo,
)


class Fault(NamedTuple):
    """What the server does to an idle connection, and what the shim is to call it."""

    steps: List[Step]
    verdict: Verdict
    reason: str
    tls: Optional[str] = None
    family: int = socket.AF_INET


#: urllib3's own check sees them all: the socket is readable
SURVIVED = {
    "FIN": Fault(
        [CloseAfter(0)],
        Verdict.CLOSED,
        "the commonest end, a server's keep-alive timeout; the whole check is ours to keep right",
    ),
    "RST": Fault(
        [ResetAfter(0)],
        Verdict.RESET,
        "what a load balancer or tcpkill does; poll() reports it apart from a FIN",
    ),
    "half-closed": Fault(
        [HalfCloseAfter(0)],
        Verdict.CLOSED,
        "the peer's kernel still acknowledges: a request sent would be swallowed",
    ),
    "lingering close": Fault(
        [LingeringClose(0)],
        Verdict.CLOSED,
        "Apache's way: it reads a late request and throws it away",
    ),
    "408": Fault(
        [Surplus(408)],
        Verdict.UNREAD,
        "taken for the answer to the next request if the check were to miss it",
    ),
    "200 nobody asked for": Fault(
        [Surplus(200, b"poison")],
        Verdict.UNREAD,
        "response desync: a peek that told TLS apart by bytes must not take this for healthy",
    ),
    "408, then FIN": Fault(
        [Surplus(408), CloseAfter(0)],
        Verdict.UNREAD,
        "bytes and a FIN at once: without TLS the bytes count, whatever is behind them",
    ),
    "FIN, IPv6": Fault(
        [CloseAfter(0)], Verdict.CLOSED, "IPv4 and IPv6 alike", family=socket.AF_INET6
    ),
    "RST, IPv6": Fault(
        [ResetAfter(0)], Verdict.RESET, "IPv4 and IPv6 alike", family=socket.AF_INET6
    ),
    "FIN, AF_UNIX": Fault(
        [CloseAfter(0)],
        Verdict.CLOSED,
        "no TCP_INFO and no keepalive there: the check must do without",
        family=socket.AF_UNIX,
    ),
    "408, AF_UNIX": Fault([Surplus(408)], Verdict.UNREAD, "as above", family=socket.AF_UNIX),
    "FIN, TLS 1.2": Fault(
        [CloseAfter(0, close_notify=False)],
        Verdict.CLOSED,
        "no close_notify: the FIN alone must do",
        tls="TLSv1.2",
    ),
    "FIN, TLS 1.3": Fault(
        [CloseAfter(0, close_notify=False)], Verdict.CLOSED, "as above", tls="TLSv1.3"
    ),
    "close_notify and FIN, TLS 1.2": Fault(
        [CloseAfter(0)],
        Verdict.CLOSED,
        "the alert lies before the FIN as bytes: dead, not unread",
        tls="TLSv1.2",
    ),
    "close_notify and FIN, TLS 1.3": Fault(
        [CloseAfter(0)],
        Verdict.CLOSED,
        "the alert is encrypted and looks like an answer or a ticket",
        tls="TLSv1.3",
    ),
    "RST, TLS 1.3": Fault([ResetAfter(0)], Verdict.RESET, "as without TLS", tls="TLSv1.3"),
    "half-closed, TLS 1.3": Fault(
        [HalfCloseAfter(0)], Verdict.CLOSED, "as without TLS", tls="TLSv1.3"
    ),
    "408, TLS 1.2": Fault(
        [Surplus(408)],
        Verdict.UNREAD,
        "application data in a whole record: TLS 1.2 has no tickets that could be meant",
        tls="TLSv1.2",
    ),
    "408, TLS 1.3": Fault(
        [Surplus(408)],
        Verdict.UNREAD,
        "only a read tells it from a ticket, and what was read is lost: discard",
        tls="TLSv1.3",
    ),
}


@pytest.mark.each_value
@pytest.mark.parametrize("healthy_requests", [1, 3], ids=["full-check", "fast-check"])
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
@pytest.mark.parametrize("name", SURVIVED)
def test_survived(name, who, healthy_requests):
    fault = SURVIVED[name]
    tls = None if fault.tls is None else TLS(fault.tls)
    script = [Respond(200)] * healthy_requests + fault.steps
    with who(), FaultServer(
        script, tls=tls, family=fault.family, default=Respond(200, echo)
    ) as server, pool_for(server, tls) as pool:
        break_while_idle(server, pool, healthy_requests)

        response = pool.request("GET", "/after")

        assert response.status == 200
        assert json.loads(response.data)["path"] == "/after"
        assert [entry.connection for entry in server.journal] == [0] * healthy_requests + [1]
        if who is shim:
            wanted = {fault.verdict.value: 1}
            if healthy_requests > 1:
                wanted["alive"] = healthy_requests - 1
            assert verdicts(server) == wanted
            assert counters(server)["discards"] == 1


@pytest.mark.usefixtures("small_reads")
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_a_surplus_in_the_kernel_behind_an_answer(who):
    """In a segment of the answer before: http.client reads 8 KiB at a time and leaves it there."""
    with who(), serving([SurplusWithAnswer(408)]) as (server, pool):
        assert pool.request("GET", "/").status == 200
        assert pool.request("GET", "/").status == 200
        assert len(server.journal.connections) == 2
        if who is shim:
            assert verdicts(server) == {"unread": 1}


@pytest.mark.parametrize("version", [None, "TLSv1.3"])
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_a_surplus_that_is_read_with_its_answer(who, version, monkeypatch):
    """From Python 3.14 on 128 KiB are read at a time: it is thrown away with the answer's file."""
    monkeypatch.setattr(io, "DEFAULT_BUFFER_SIZE", 128 * 1024)
    tls = TLS(version) if version else None
    with who(), serving([SurplusWithAnswer(408)], tls=tls) as (server, pool):
        assert [pool.request("GET", "/").status for _ in range(2)] == [200, 200]
        assert len(server.journal.connections) == 1
        if who is shim:
            assert verdicts(server) == {"alive": 1}


@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_an_announced_close(who):
    """``Connection: close``: urllib3 closes by itself, and no connection is given up by anybody."""
    with who(), serving([RespondThenClose(200)]) as (server, pool):
        assert pool.request("GET", "/").status == 200
        assert pool.request("GET", "/").status == 200
        assert len(server.journal.connections) == 2
        if who is shim:
            assert counters(server)["checkouts"] == counters(server)["discards"] == 0
