"""The report on audit, held against what the same requests cost when the shim is active."""

import contextlib

import pytest
import urllib3

from pools import get, serving, shim
from replay_tools import ECHO
from service_process import service_after_two_requests, this_process
from stalepool.cli.status import page, report
from stalepool_testing import Close, ProcessThenClose, Reset

#: what meets the first request of each method, on a connection that has answered
FAULTS = {"GET": Close(), "PUT": Reset(), "POST": ProcessThenClose()}


def a_day(mode):
    """The journal of the server, and the service."""
    arrived = []

    def answer(request):
        arrived.append(request.method)
        is_to_fail = len(arrived) > 1 and arrived[1:].count(request.method) == 1
        return FAULTS.get(request.method, ECHO) if is_to_fail else ECHO

    with shim(mode=mode, replay="idempotent"), serving(answer) as (server, pool):
        for method in ("GET", "PUT", "POST", "DELETE"):
            get(pool)
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                pool.request(method, "/")
        return server, this_process()


def test_it_says_how_many_active_would_have_saved():
    server, service = a_day("audit")
    assert server.journal.count(answered=False) == 3
    text = report.report([service])
    for words in (
        "\nHow many requests would active have saved? 2 of the 3 requests that failed on a "
        "connection that ended.\n",
        "\n  http://127.0.0.1:%d\n" % server.port,
        "\n      1 not: POST, PATCH, or another method",
        "\n  * STALEPOOL_MODE=active: 2 failed requests would",
        ": 1 request failed that may not be sent again",
    ):
        assert words in text
    text = page.page([service])
    assert "audit for " in text.splitlines()[0]
    assert "3 requests failed on a connection that ended, active would have sent 2 of them" in text
    assert "    failed, active would have sent once more: 2 requests" in text
    assert "requests sent once more" not in text

    _, service = a_day("active")
    assert service.counted()["totals"]["saved"]["replayed"] == 2
    assert report.report([service]) == report.NO_AUDIT


METHOD = {"replays_refused": {"method": 2}}


@pytest.mark.parametrize(
    ("totals", "words"),
    [
        ({}, "* no setting: no connection ended during a request"),
        ({"replays_refused": {"peer_had_it": 2}}, "the servers' logs: 2 requests failed that"),
        ({"replays_refused": {"switched_off": 1}}, "* STALEPOOL_REPLAY=idempotent: 1 request"),
        ({"replays_refused": {"body": 1}}, "* STALEPOOL_MODE=active would not have saved"),
        ({"moved": {"probe_unanswered": 3}}, "3 connections not reused that only looked alive"),
        ({"died_idle_s": {"5.96": 41}}, "idle times at which connections died: 5.96 s (41)"),
        (
            {"died_idle_s": {"5.96": 3, "45.5": 1}, **METHOD},
            "* STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S=4.8, if POST and PATCH to http://127.0.0.1:",
        ),
        ({"moved": {"observed_limit": 2}}, "2 requests would have taken a fresh connection: near"),
        ({"died_idle_s": {"5.96": 3}, "replays_refused": {"body": 2}}, None),
        ({"died_idle_s": {"0.00124": 1, "5.96": 3}, **METHOD}, None),
        (METHOD, None),
    ],
)
def test_what_follows(totals, words):
    """Of a service that has counted this, beside nothing; None: no idle time is recommended."""
    service = service_after_two_requests(mode="audit")
    (seen,) = service.seen
    for counted in (seen["totals"], *seen["origins"].values()):
        counted.update(totals)
    text = report.report([service])
    assert ("STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S" not in text) if words is None else (words in text)
