"""A soak: what holds for one request holds for twenty thousand of them, all at once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Dict, List, Tuple

import pytest

from conftest import child
from replay_soak import PickFault
from replay_tools import ECHO, NON_IDEMPOTENT
from stalepool_testing import TLS, Entry, FaultServer
from worlds import WITH_TESTS

CLIENT = "from worlds import enter; enter('eventlet'); import replay_soak; replay_soak.main()"
LONGEST_S = 1800
#: eventlet leaves a TLS socket whose handshake failed to its finalizer, which closes it and warns.
#: Descriptors that stay open are counted in the client itself
WARNINGS = ("-Werror", "-Wignore::DeprecationWarning", "-Wignore:unclosed:ResourceWarning")

pytestmark = pytest.mark.timeout(LONGEST_S)


def soak(requests: int, **environ: str) -> Tuple[Dict[str, Any], List[List[Entry]]]:
    """Let a client loose on two servers, the second with TLS: its report, and their journals."""
    tls = TLS()
    with FaultServer(default=PickFault("seed")) as plain, FaultServer(
        default=PickFault("seed"), tls=tls
    ) as encrypted:
        words = [*WARNINGS, "-c", CLIENT, requests, "seed", tls.ca_path, plain.url, encrypted.url]
        done = child(*words, env={**WITH_TESTS, **environ}, timeout=LONGEST_S)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout), [list(plain.journal), list(encrypted.journal)]


@pytest.mark.slow
def test_soak(request: pytest.FixtureRequest) -> None:
    requests = request.config.getoption("--soak")
    report, journals = soak(requests, STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S="0.2")
    picked = [
        Counter(type(entry.step).__name__ for entry in journal if entry.step is not ECHO)
        for journal in journals
    ]
    print("\n%d requests; %s" % (requests, picked))
    print(report["counters"])
    print({method: len(failed) for method, failed in report["failed"].items()})
    # every idempotent request answered, no answer given to another
    assert report["lost"] == []
    assert report["wrong"] == []
    # no other one processed twice, and each that was answered processed
    for method in NON_IDEMPOTENT:
        arrived = [entry for journal in journals for entry in journal if entry.method == method]
        processed = Counter(entry.request_id for entry in arrived if entry.processed)
        assert set(processed.values()) == {1}
        unanswered = {entry.request_id for entry in arrived} - set(processed)
        assert unanswered <= set(report["failed"][method])
    # no descriptor and no green thread left over
    assert report["left_over"] == {}
    # and it has all been met
    assert all(len(steps) >= 11 for steps in picked)
    assert report["counters"]["replays"].keys() == {"ok"}
    assert report["counters"]["replays_refused"].keys() <= {"method", "answer_began"}
    assert report["counters"]["moved"].keys() >= {"idle_setting"}


@pytest.mark.full
def test_stock_loses_requests() -> None:
    report, _ = soak(1000, STALEPOOL_ENABLED="0")
    assert report["lost"] != []
    assert report["counters"]["checkouts"] == 0
