"""The table of what must hold, over all factors: for each pair of them, in full with ``--full``.

The factors: situation, method, threads or eventlet, plain or TLS 1.2 or 1.3, direct or through
haproxy or through a proxy, after a full or a fast check. urllib3 1.26 and 2.x: by the environment
the suite runs in. With ``--full`` it is shown of stock, too, what becomes of each case.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import List

import pytest

from conftest import clean_environ
from replay_pairs import full_product, pairwise
from replay_scenes import (
    FACTORS,
    FEWER_FACTORS,
    SITUATIONS,
    Case,
    Result,
    expected,
    is_possible,
    play_all,
)
from worlds import WITH_TESTS

pytestmark = pytest.mark.timeout(600)  # with --full it takes minutes


def play_all_in_eventlet(cases: List[Case], has_shim: bool, haproxy: str) -> List[Result]:
    script = "from worlds import enter; enter('eventlet'); import replay_scenes as r; r.main()"
    done = subprocess.run(
        [sys.executable, "-Werror", "-Wignore::DeprecationWarning", "-c", script],
        input=json.dumps({"cases": cases, "has_shim": has_shim, "haproxy": haproxy}),
        env=clean_environ(**WITH_TESTS),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [Result(*result) for result in json.loads(done.stdout)]


PLAYERS = {"threads": play_all, "eventlet": play_all_in_eventlet}


@pytest.mark.each_value
@pytest.mark.parametrize("has_shim", [False, True], ids=["stock", "shim"])
@pytest.mark.parametrize("is_behind", [False, pytest.param(True, marks=pytest.mark.haproxy)])
@pytest.mark.parametrize("world", PLAYERS)
def test_the_table(world, is_behind, has_shim, request):
    """In each world every pair of the others; all side by side, those behind haproxy apart."""
    haproxy = request.getfixturevalue("haproxy_binary") if is_behind else ""
    if request.config.getoption("--full"):
        chosen = full_product(FACTORS, is_possible)
    else:
        chosen = pairwise(FEWER_FACTORS, is_possible)
    cases = [case for case in map(Case._make, chosen) if (case.route == "haproxy") == is_behind]
    results = PLAYERS[world](cases, has_shim, haproxy)
    assert len(results) == len(cases) > len(SITUATIONS) / 2
    wrong = {
        "-".join(case): (result, expected(case, has_shim))
        for case, result in zip(cases, results)
        if result != expected(case, has_shim)
    }
    assert wrong == {}
