"""``replay=evidence``: the one sequence that lets a POST be sent again, and what looks like it."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple

import pytest
import urllib3

from pools import pooled_connection, shim, stock
from replay_tools import (
    Outcome,
    after_checkout,
    have,
    kind_of,
    reused,
    send,
    side_by_side,
    totals,
)
from stalepool import evidence, tcpinfo
from stalepool.evidence import Evidence
from stalepool.testing import (
    TLS,
    BlackHole,
    Close,
    CloseAfter,
    HalfCloseAfter,
    HalfCloseThenProcess,
    LingeringClose,
    ProcessThenClose,
    ProcessThenReset,
    Reset,
    ResetAfter,
    Step,
    healthy,
    kernel,
)
from stalepool.testing.exchange import Exchange
from stalepool.testing.script import IdleStep
from stalepool.wire import wire_of
from worlds import WITH_TESTS

TRIES = 50
SETTINGS = ("off", "safe", "idempotent", "evidence")

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks TCP_INFO")


class Server(NamedTuple):
    """What a server does. An answer step meets the POST; an idle step comes between checkout
    and its first byte, and nobody looks again: as if the FIN had crossed it on the way.
    """

    step: Step
    processes: bool


#: none of them may get a POST twice; the last of each kind did not act, and cannot be told apart
SERVERS = {
    "half-closes, then acts": Server(HalfCloseThenProcess(), True),
    "Apache's lingering close": Server(LingeringClose(), False),
    "half-closes": Server(HalfCloseAfter(), False),
    "acts, then resets": Server(ProcessThenReset(), True),
    "resets": Server(Reset(), False),
    "acts, then closes": Server(ProcessThenClose(), True),
    "closes as it arrives": Server(Close(), False),
    "resets before it arrives": Server(ResetAfter(), False),
}


@contextlib.contextmanager
def meeting(step: Step, tls: Optional[TLS] = None) -> Iterator[Tuple[Any, Any]]:
    """A reused connection that meets the step; without the second look, which would see to it."""
    steps = [] if isinstance(step, IdleStep) else [step]
    with reused(*steps, tls=tls, timeout=2.0) as (server, pool):
        if isinstance(step, IdleStep):
            events = 0 if isinstance(step, ResetAfter) else kernel.POLLRDHUP
            after_checkout(pool, have(server, step, events))
        yield server, pool


def post(step: Step, server: Any, pool: Any, **options: Any) -> Outcome:
    """One POST; where a late request is read, that is waited for."""
    outcome = send(server, pool, "POST", **options)
    if isinstance(step, (HalfCloseThenProcess, LingeringClose)):
        server.wait_request(2)
        number = server.journal[-1].connection
        pool.close()
        server.wait_ended(number)
        entries = [entry for entry in server.journal if entry.method == "POST"]
        processed = sum(entry.processed for entry in entries)
        outcome = outcome._replace(arrivals=len(entries), processed=processed)
    return outcome


@pytest.mark.parametrize("body", [b"pay 10", None], ids=["two segments", "one segment"])
@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_no_post_is_sent_twice(setting, name, body):
    step, processes = SERVERS[name]

    def once() -> None:
        with meeting(step) as (server, pool):
            outcome = post(step, server, pool, body=body)
            assert outcome.error is not None, outcome
            assert outcome.processed == int(processes)

    tries = TRIES if setting == "evidence" else 2
    with shim(replay=setting):
        side_by_side([once] * tries)
        refusal = "switched_off" if setting == "off" else "method"
        assert totals("replays_refused") == {refusal: tries}
        assert totals("replays") == {}


@pytest.mark.parametrize("name", SERVERS)
def test_stock_shows_the_failure(name):
    step, processes = SERVERS[name]
    with stock(), meeting(step) as (server, pool):
        outcome = post(step, server, pool)
        assert outcome.error is not None
        assert outcome.processed == int(processes)


@linux_only
@pytest.mark.parametrize("body", [b"pay 10", None], ids=["two segments", "one segment"])
@pytest.mark.parametrize("version", [None, "TLSv1.2", "TLSv1.3"])
def test_closed_before_a_byte_of_it_was_read(version, body):
    """A server that had closed, fully, when the request came: the POST is sent again."""
    tls = None if version is None else TLS(version)

    def once() -> Tuple[Any, ...]:
        with meeting(CloseAfter(close_notify=False), tls) as (server, pool):
            outcome = send(server, pool, "POST", body=body)
            return outcome.status, outcome.arrivals, outcome.processed

    with shim(replay="evidence"):
        assert Counter(side_by_side([once] * TRIES)) == {(200, 1, 1): TRIES}
        assert totals("replays") == {"ok": TRIES}


@pytest.mark.parametrize("setting", ["off", "safe", "idempotent"])
def test_no_other_setting_asks_for_evidence(setting):
    step = CloseAfter(close_notify=False)
    for tls in (None, TLS()):
        with shim(replay=setting), meeting(step, tls) as (server, pool):
            outcome = send(server, pool, "POST")
            assert kind_of(outcome.error) == "connection"
            assert outcome.arrivals == 0


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_close_notify_is_no_evidence(version):
    """It counts among the bytes received, so the FIN can no longer be told by their number."""
    step = CloseAfter(close_notify=True)
    with shim(replay="evidence"), meeting(step, TLS(version)) as (server, pool):
        outcome = send(server, pool, "POST")
        assert kind_of(outcome.error) == "connection"
        assert outcome.arrivals == 0


@linux_only
@pytest.mark.parametrize("options", [{"body": iter([b"once"])}, {"headers": {"If-Match": "x"}}])
def test_evidence_lifts_no_other_rule(options):
    with shim(replay="evidence"), meeting(CloseAfter()) as (server, pool):
        outcome = send(server, pool, "POST", **options)
        assert kind_of(outcome.error) == "connection"
        assert outcome.arrivals == 0


@linux_only
def test_the_callers_timeout_is_not_extended(monkeypatch):
    """Nothing is acknowledged and no FIN has come, so there is nothing to wait for."""
    pauses: List[float] = []
    monkeypatch.setattr(urllib3.util.retry, "time", SimpleNamespace(sleep=pauses.append))
    with shim(replay="evidence"), reused(BlackHole()) as (server, pool):
        server.wait_idle_step()
        outcome = send(server, pool, "POST", timeout=0.1)
        assert kind_of(outcome.error) == "read timeout"
    assert pauses == []


# -- the wait for the RST ------------------------------------------------------------------------


class Late:
    """A connection, and the evidence about what is sent on it: nothing, so nothing is acknowledged.

    ``pauses``: how long the evidence has waited, each time. ``act``: what happens meanwhile.
    """

    def __init__(self, pair: Any) -> None:
        self.client, self.server = pair.client, pair.peer
        self.pauses: List[float] = []
        self.act: Callable[[], None] = lambda: None
        self.evidence = Evidence(self.client, self._pause)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.act()

    def half_close(self) -> None:
        kernel.shutdown(self.server, socket.SHUT_WR)
        kernel.wait_readable(self.client)

    def reset(self) -> None:
        kernel.reset(self.server)
        kernel.wait_readable(self.client, events=0)

    def gather(self) -> bool:
        self.evidence.gather()
        return self.evidence.never_read


@pytest.fixture
def late():
    with healthy() as pair:
        yield Late(pair)


@linux_only
def test_the_rst_is_waited_for(late):
    """That it may be one of a program's, which acted before, is what makes it no proof."""
    late.evidence._wait_s = 30.0
    late.half_close()
    late.act = late.reset
    assert late.gather()
    assert len(late.pauses) == 1


@linux_only
def test_an_rst_that_comes_later_than_a_kernel_sends_it_is_no_evidence(late):
    late.half_close()

    def be_late():
        time.sleep(0.05)
        late.reset()

    late.act = be_late
    assert not late.gather()
    assert len(late.pauses) == 1


@linux_only
def test_no_rst(late):
    late.half_close()
    late.act = lambda: time.sleep(late.pauses[-1])
    assert not late.gather()
    waited = len(late.pauses)
    assert 1 <= waited < 40
    late.reset()
    assert not late.gather()  # once a request, whatever has come since
    assert len(late.pauses) == waited


@linux_only
def test_the_wait_ends_though_sleep_and_clock_are_mocked(late, monkeypatch):
    monkeypatch.setattr(evidence, "monotonic", lambda: 0.0)
    late.half_close()
    assert not late.gather()
    assert 1 <= len(late.pauses) < 40


@linux_only
@pytest.mark.parametrize("end", ["none", "reset"])
def test_without_a_fin_nothing_is_waited_for(late, end):
    if end == "reset":
        late.reset()
    assert not late.gather()
    assert late.pauses == []


@linux_only
def test_the_wait_is_as_long_as_the_way(late, monkeypatch):
    """Two round trips; the peer's pause before it answers is none of them."""
    for _ in range(3):
        late.client.send(b"?")
        late.server.recv(1)
        time.sleep(0.02)
        late.server.send(b"!")
        late.client.recv(1)
    measured_s = tcpinfo.min_rtt_s(wire_of(late.client))
    assert 0 < measured_s < 0.02
    for rtt_s, wait_s in ((0.0, 0.002), (0.01, 0.022), (4294.967295, 0.2)):
        monkeypatch.setattr(tcpinfo, "min_rtt_s", lambda wire, rtt_s=rtt_s: rtt_s)
        assert Evidence(late.client, time.sleep)._wait_s == pytest.approx(wait_s)


def test_where_no_round_trip_can_be_had(late, monkeypatch):
    monkeypatch.setattr(tcpinfo, "_TCP_INFO", None)
    assert tcpinfo.min_rtt_s(wire_of(late.client)) is None
    assert Evidence(late.client, time.sleep)._wait_s == pytest.approx(0.002)


@dataclass(frozen=True)
class HalfCloseThenProcessThenReset(HalfCloseThenProcess):
    """Acts on a late request, and resets at once: before the client looks."""

    def afterwards(self, channel: Any) -> None:
        channel.wait_request(None)
        Exchange(channel, channel.read_head(), self).read(processed=True)
        channel.reset()


def wait_for_the_rst(conn: Any) -> None:
    """Have the connection read its next answer when the server has reset it."""
    stock_getresponse = conn.getresponse

    def getresponse(*args: Any, **kwargs: Any) -> Any:
        del conn.getresponse
        kernel.wait_readable(conn.sock, events=0)
        return stock_getresponse(*args, **kwargs)

    conn.getresponse = getresponse


@linux_only
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_one_server_that_evidence_is_wrong_about(setting):
    """The documented limit: its kernel leaves the trace of one that never read the request."""
    step = HalfCloseThenProcessThenReset()
    with shim(replay=setting), meeting(step) as (server, pool):
        wait_for_the_rst(pooled_connection(pool))
        outcome = send(server, pool, "POST", body=None)
        if setting == "evidence":
            assert (outcome.status, outcome.processed) == (200, 2)
        else:
            assert (kind_of(outcome.error), outcome.processed) == ("connection", 1)


@dataclass(frozen=True)
class CloseLate(ProcessThenClose):
    """Acts, and closes after longer than the evidence is waited for."""

    def answer(self, exchange: Any) -> None:
        exchange.process()
        exchange.channel.pause(0.1)
        exchange.channel.close()


@linux_only
def test_the_wait_for_evidence_ends():
    with shim(replay="evidence"), reused(CloseLate()) as (server, pool):
        outcome = send(server, pool, "POST", body=None)
        assert (kind_of(outcome.error), outcome.processed) == ("connection", 1)


GREEN = """
    from worlds import enter
    enter("eventlet")

    import json
    from collections import Counter
    from pools import shim
    from replay_tools import side_by_side
    from stalepool.testing import CloseAfter, HalfCloseThenProcess, ProcessThenReset
    from test_replay_evidence import meeting, post

    def once(step):
        with meeting(step) as (server, pool):
            outcome = post(step, server, pool, body=None)
            return "%s, %d times" % (outcome.status, outcome.processed)

    seen = {}
    with shim(replay="evidence"):
        for step in (CloseAfter(), HalfCloseThenProcess(), ProcessThenReset()):
            outcomes = side_by_side([lambda: once(step)] * 50, at_once=4)
            seen[type(step).__name__] = Counter(outcomes)
    print(json.dumps(seen))
"""


@linux_only
def test_under_eventlet(run_python):
    """There an RST is EOF: the kernel has to be asked."""
    assert run_python(GREEN, env=WITH_TESTS) == {
        "CloseAfter": {"200, 1 times": 50},
        "HalfCloseThenProcess": {"None, 1 times": 50},
        "ProcessThenReset": {"None, 1 times": 50},
    }
