"""The report on audit, held against what the same requests cost when the shim is active."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Dict, Iterator, Tuple

import pytest

from pools import shim
from replay_tools import ECHO, prime, send
from service_process import SERVICE, Started
from stalepool.cli.status import proc, report
from stalepool.cli.status.find import Process
from stalepool.cli.status.services import Service
from stalepool_testing import Close, FaultServer, ProcessThenClose, Reset, Respond

pytestmark = pytest.mark.skipif(not proc.has_proc(), reason="there is no /proc here")

DAY = """
for method in ("GET", "PUT", "POST", "DELETE"):
    ask(), ask(method)
from stalepool import status
status._make_due()
ask()
"""

#: what meets the first request of each method, on a connection that has answered
FAULTS = {"GET": Close(), "PUT": Reset(), "POST": ProcessThenClose()}


def faulty() -> FaultServer:
    arrived = []

    def answer(request: Any) -> Any:
        arrived.append(request.method)
        is_to_fail = len(arrived) > 1 and arrived[1:].count(request.method) == 1
        return FAULTS.get(request.method, ECHO) if is_to_fail else ECHO

    return FaultServer(answer)


@pytest.fixture
def at(tmp_path: Any) -> Dict[str, str]:
    return {"STALEPOOL_STATUS_DIR": str(tmp_path)}


@contextlib.contextmanager
def service(mode: str, at: Dict[str, str]) -> Iterator[Tuple[Any, Any]]:
    with faulty() as server:
        with Started(SERVICE + DAY, server.port, **at, STALEPOOL_MODE=mode) as started:
            yield server, started


def test_it_says_how_many_active_would_have_saved(at: Dict[str, str], stalepool_here: Any) -> None:
    with service("audit", at) as (server, started):
        done = stalepool_here("status", "--report", started.pid)
        page = stalepool_here("status", started.pid).stdout
        failed = [entry for entry in server.journal if not entry.answered]
    assert done.returncode == 0 and done.stderr == ""
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert len(failed) == 3
    answer = "How many requests would active have saved? 2 of the 3 requests that failed on a dead "
    assert lines[1] == answer + "connection."
    assert "http://127.0.0.1:%d" % server.port in lines
    assert any(line.startswith("1 not: POST, PATCH, or another method") for line in lines)
    assert any(
        line.startswith("* STALEPOOL_MODE=active: 2 failed requests would") for line in lines
    )
    assert any("1 request failed that may not be sent again" in line for line in lines)
    assert "audit for " in page.splitlines()[0]
    assert "3 requests failed on a dead connection, active would have sent 2 of them" in page
    assert "    failed, active would have sent once more: 2 requests\n" in page
    assert "requests sent once more" not in page

    with service("active", at) as (server, started):
        done = stalepool_here("status", "--json", started.pid)
        nothing = stalepool_here("status", "--report", started.pid).stdout
    (shown,) = json.loads(done.stdout)["services"]
    assert shown["totals"]["saved"] == {"replayed": 2, "kept_off": 0, "reconnected": 0}
    assert report.NO_AUDIT in nothing


def audited(**totals: Any) -> str:
    """The report on a service that has counted this, beside nothing."""
    with shim(mode="audit"), FaultServer([Respond(200)], default=ECHO) as server:
        pool_module = sys.modules["urllib3"]
        with pool_module.HTTPConnectionPool(server.host, server.port) as pool:
            prime(pool)
            send(server, pool, "GET")
        import stalepool

        seen = {"written_at": 0.0, **json.loads(json.dumps(stalepool.snapshot()))}
    for counted in (seen["totals"], *seen["origins"].values()):
        counted.update(totals)
    return report.report([Service([Process(1, "u", "x", b"", seen)])])


@pytest.mark.parametrize(
    ("totals", "words"),
    [
        ({}, "* no setting: no request failed"),
        ({"replays_refused": {"peer_had_it": 2}}, "the servers' logs: 2 requests failed that"),
        ({"replays_refused": {"switched_off": 1}}, "* STALEPOOL_REPLAY=idempotent: 1 request"),
        ({"replays_refused": {"body": 1}}, "* STALEPOOL_MODE=active would not have saved"),
        ({"verdicts": {"probe_unanswered": 3}}, "3 connections not reused that only looked alive"),
        ({"died_idle_s": {"5.96": 41}}, "idle ages at which connections died: 5.96 s (41)"),
        (
            {"died_idle_s": {"5.96": 3, "45.5": 1}, "replays_refused": {"method": 2}},
            "* STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S=4.8, if POST and PATCH to http://127.0.0.1:",
        ),
        ({"moved": {"observed_limit": 2}}, "2 requests would have taken a fresh connection: near"),
    ],
)
def test_what_follows(totals: Dict[str, Any], words: str) -> None:
    assert words in audited(**totals)


@pytest.mark.parametrize(
    "totals",
    [
        {"died_idle_s": {"5.96": 3}, "replays_refused": {"body": 2}},
        {"died_idle_s": {"0.00124": 1, "5.96": 3}, "replays_refused": {"method": 2}},
        {"replays_refused": {"method": 2}},
    ],
)
def test_no_number_follows(totals: Dict[str, Any]) -> None:
    assert "STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S" not in audited(**totals)
