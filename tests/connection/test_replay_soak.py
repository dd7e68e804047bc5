"""A soak: what holds for one request holds for twenty thousand of them, all at once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Tuple

import pytest

from conftest import clean_environ
from replay_soak import Report, SoakServer
from replay_tools import NON_IDEMPOTENT
from stalepool_testing import TLS
from worlds import WITH_TESTS

CLIENT = "from worlds import enter; enter('eventlet'); import replay_soak; replay_soak.main()"
LONGEST_S = 1800
#: eventlet leaves a TLS socket whose handshake failed to its finalizer, which closes it and warns.
#: Descriptors that stay open are counted in the client itself
WARNINGS = ("-Werror", "-Wignore::DeprecationWarning", "-Wignore:unclosed:ResourceWarning")

pytestmark = pytest.mark.timeout(LONGEST_S)


def soak(requests: int, **environ: str) -> Tuple[Report, Tuple[SoakServer, SoakServer]]:
    """Let a client loose on two servers, the second with TLS."""
    tls = TLS()
    with SoakServer("seed") as plain, SoakServer("seed", tls) as encrypted:
        arguments = [str(requests), "seed", tls.ca_path, plain.url, encrypted.url]
        done = subprocess.run(
            [sys.executable, *WARNINGS, "-c", CLIENT, *arguments],
            env=clean_environ(**WITH_TESTS, **environ),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return Report(*json.loads(done.stdout)), (plain, encrypted)


@pytest.mark.slow
def test_soak(request: pytest.FixtureRequest) -> None:
    requests = request.config.getoption("--soak")
    report, servers = soak(requests, STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S="0.2")
    print(
        "\n%d requests; %s" % (report.requests, [dict(server.fault.picked) for server in servers])
    )
    print(report.counters)
    print({method: len(failed) for method, failed in report.failed.items()})
    # every idempotent request answered, no answer given to another
    assert report.lost == []
    assert report.wrong == []
    # no other one processed twice, and each that was answered processed
    for method in NON_IDEMPOTENT:
        processed = {
            request_id: count
            for server in servers
            for (its_method, request_id), count in server.tally.processed.items()
            if its_method == method
        }
        assert set(processed.values()) == {1}
        arrived = [key for server in servers for key in server.tally.arrived if key[0] == method]
        unanswered = {request_id for _, request_id in arrived} - set(processed)
        assert unanswered <= set(report.failed[method])
    # no descriptor and no green thread left over
    assert report.left_over == {}
    # and it has all been met
    assert all(len(server.fault.picked) >= 11 for server in servers)
    assert report.counters["replays"].keys() == {"ok"}
    assert report.counters["replays_refused"].keys() <= {"method", "answer_began"}
    assert report.counters["moved"].keys() >= {"idle_setting"}


@pytest.mark.full
def test_stock_loses_requests() -> None:
    report, _ = soak(1000, STALEPOOL_ENABLED="0")
    assert report.lost != []
    assert report.counters["checkouts"] == 0
