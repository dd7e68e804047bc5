"""The faults that urllib3 survives by itself: with the shim in its place they must stay survived.

Each kind of socket in each such state is in ``test_checkout``; here the server is a real one, and
the fast check meets its end. What stock does not survive is in the modules named after the fault.
"""

from __future__ import annotations

import io
import json
from typing import List, NamedTuple

import pytest

from pools import break_while_idle, counters, serving, shim, stock, verdicts
from stalepool.sockets.verdict import Verdict
from stalepool_testing import (
    TLS,
    CloseAfter,
    LingeringClose,
    ResetAfter,
    Respond,
    Step,
    Surplus,
    SurplusWithAnswer,
    echo,
)


class Fault(NamedTuple):
    """What the server does to an idle connection, and what the shim is to call it."""

    steps: List[Step]
    verdict: Verdict
    is_tls: bool = False


#: urllib3's own check sees them all: the socket is readable
SURVIVED = {
    # the commonest end, a server's keep-alive timeout; the whole check is ours to keep right
    "FIN": Fault([CloseAfter(0)], Verdict.CLOSED),
    # what a load balancer or tcpkill does; poll() reports it apart from a FIN
    "RST": Fault([ResetAfter(0)], Verdict.RESET),
    # Apache's way: it reads a late request and throws it away
    "lingering close": Fault([LingeringClose(0)], Verdict.CLOSED),
    # taken for the answer to the next request if the check were to miss it
    "408": Fault([Surplus(408)], Verdict.UNREAD),
    # bytes and a FIN at once: without TLS the bytes count, whatever is behind them
    "408, then FIN": Fault([Surplus(408), CloseAfter(0)], Verdict.UNREAD),
    # the alert is encrypted and looks like an answer or a ticket
    "close_notify and FIN, TLS 1.3": Fault([CloseAfter(0)], Verdict.CLOSED, is_tls=True),
    # only a read tells it from a ticket, and what was read is lost: discard
    "408, TLS 1.3": Fault([Surplus(408)], Verdict.UNREAD, is_tls=True),
}

both = pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])


@both
@pytest.mark.parametrize("name", SURVIVED)
def test_survived(name, who):
    fault = SURVIVED[name]
    script = [Respond(200), Respond(200), *fault.steps]
    tls = TLS() if fault.is_tls else None
    with who(), serving(script, tls=tls, default=Respond(200, echo)) as (server, pool):
        break_while_idle(server, pool, healthy_requests=2)

        response = pool.request("GET", "/after")

        assert response.status == 200
        assert json.loads(response.data)["path"] == "/after"
        assert [entry.connection for entry in server.journal] == [0, 0, 1]
        if who is shim:
            assert verdicts(server) == {"alive": 1, fault.verdict.value: 1}
            assert counters(server)["discards"] == 1
            assert not any(counters(server)["saved"].values())


@pytest.mark.usefixtures("small_reads")
@both
def test_a_surplus_in_the_kernel_behind_an_answer(who):
    """In a segment of the answer before: http.client reads 8 KiB at a time and leaves it there."""
    with who(), serving([SurplusWithAnswer(408)]) as (server, pool):
        assert pool.request("GET", "/").status == 200
        assert pool.request("GET", "/").status == 200
        assert len(server.journal.connections) == 2
        if who is shim:
            assert verdicts(server) == {"unread": 1}


@both
def test_a_surplus_that_is_read_with_its_answer(who, monkeypatch):
    """From Python 3.14 on 128 KiB are read at a time: it is thrown away with the answer's file."""
    monkeypatch.setattr(io, "DEFAULT_BUFFER_SIZE", 128 * 1024)
    with who(), serving([SurplusWithAnswer(408)]) as (server, pool):
        assert [pool.request("GET", "/").status for _ in range(2)] == [200, 200]
        assert len(server.journal.connections) == 1
        if who is shim:
            assert verdicts(server) == {"alive": 1}
