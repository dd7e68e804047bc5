"""The report on audit, held against what the same requests cost when the shim is active."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Tuple

import pytest
import urllib3

from pools import get, serving, shim
from replay_tools import ECHO
from service_process import this_process
from stalepool.cli.status import page, report
from stalepool.cli.status.services import Service
from stalepool_testing import Close, FaultServer, ProcessThenClose, Reset

#: what meets the first request of each method, on a connection that has answered
FAULTS = {"GET": Close(), "PUT": Reset(), "POST": ProcessThenClose()}


def faulty() -> Any:
    arrived = []

    def answer(request: Any) -> Any:
        arrived.append(request.method)
        is_to_fail = len(arrived) > 1 and arrived[1:].count(request.method) == 1
        return FAULTS.get(request.method, ECHO) if is_to_fail else ECHO

    return answer


def a_day(mode: str) -> Tuple[FaultServer, Service]:
    with shim(mode=mode, replay="idempotent"), serving(faulty()) as (server, pool):
        for method in ("GET", "PUT", "POST", "DELETE"):
            get(pool)
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                pool.request(method, "/")
        return server, this_process()


def test_it_says_how_many_active_would_have_saved() -> None:
    server, service = a_day("audit")
    assert server.journal.count(answered=False) == 3
    lines = [line.strip() for line in report.report([service]).splitlines()]
    answer = "How many requests would active have saved? 2 of the 3 requests that failed on a "
    assert lines[1] == answer + "connection that ended."
    assert "http://127.0.0.1:%d" % server.port in lines
    assert any(line.startswith("1 not: POST, PATCH, or another method") for line in lines)
    assert any(
        line.startswith("* STALEPOOL_MODE=active: 2 failed requests would") for line in lines
    )
    assert any("1 request failed that may not be sent again" in line for line in lines)
    text = page.page([service])
    assert "audit for " in text.splitlines()[0]
    assert "3 requests failed on a connection that ended, active would have sent 2 of them" in text
    assert "    failed, active would have sent once more: 2 requests" in text
    assert "requests sent once more" not in text

    _, service = a_day("active")
    saved = service.counted()["totals"]["saved"]
    assert saved == {"replayed": 2, "kept_off": 0, "reconnected": 0}
    assert report.report([service]) == report.NO_AUDIT


def audited(**totals: Any) -> str:
    """The report on a service that has counted this, beside nothing."""
    with shim(mode="audit"), serving() as (_, pool):
        assert [get(pool), get(pool)] == [200, 200]
        service = this_process()
    (seen,) = service.seen
    for counted in (seen["totals"], *seen["origins"].values()):
        counted.update(totals)
    return report.report([service])


NO_NUMBER = "no STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S"


@pytest.mark.parametrize(
    ("totals", "words"),
    [
        ({}, "* no setting: no connection ended during a request"),
        ({"replays_refused": {"peer_had_it": 2}}, "the servers' logs: 2 requests failed that"),
        ({"replays_refused": {"switched_off": 1}}, "* STALEPOOL_REPLAY=idempotent: 1 request"),
        ({"replays_refused": {"body": 1}}, "* STALEPOOL_MODE=active would not have saved"),
        ({"verdicts": {"probe_unanswered": 3}}, "3 connections not reused that only looked alive"),
        ({"died_idle_s": {"5.96": 41}}, "idle times at which connections died: 5.96 s (41)"),
        (
            {"died_idle_s": {"5.96": 3, "45.5": 1}, "replays_refused": {"method": 2}},
            "* STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S=4.8, if POST and PATCH to http://127.0.0.1:",
        ),
        ({"moved": {"observed_limit": 2}}, "2 requests would have taken a fresh connection: near"),
        ({"died_idle_s": {"5.96": 3}, "replays_refused": {"body": 2}}, NO_NUMBER),
        ({"died_idle_s": {"0.00124": 1, "5.96": 3}, "replays_refused": {"method": 2}}, NO_NUMBER),
        ({"replays_refused": {"method": 2}}, NO_NUMBER),
    ],
)
def test_what_follows(totals: Dict[str, Any], words: str) -> None:
    report = audited(**totals)
    if words == NO_NUMBER:
        assert "STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S" not in report
    else:
        assert words in report
