"""The table of what must hold, over all factors: in each pair of them, in full with ``--full``.

The factors: situation, method, threads or eventlet, plain or TLS 1.2 or 1.3, direct or through
haproxy or through a proxy. urllib3 1.26 and 2.x: by the environment the suite runs in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any, Dict, List

import pytest

from conftest import clean_environ
from replay_pairs import full_product, pairs_of, pairwise
from replay_scenes import FACTORS, Case, Result, expected, is_possible, play_all
from worlds import WITH_TESTS

pytestmark = pytest.mark.timeout(600)  # the first test plays all cases, side by side

WORLDS = ("threads", "eventlet")

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


def cases_for(full: bool) -> Dict[str, List[Case]]:
    """The cases of each world."""
    choose = full_product if full else pairwise
    chosen = choose([*FACTORS, WORLDS], lambda *case: is_possible(*case[:-1]))
    return {world: [Case(*case[:-1]) for case in chosen if case[-1] == world] for world in WORLDS}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        by_world = cases_for(metafunc.config.getoption("--full"))
        metafunc.parametrize(
            ("world", "case", "has_shim"),
            [
                pytest.param(
                    world,
                    case,
                    has_shim,
                    id="-".join([world, *case, "shim" if has_shim else "stock"]),
                    marks=[pytest.mark.haproxy] if case.route == "haproxy" else [],
                )
                for world, cases in by_world.items()
                for case in cases
                for has_shim in (False, True)
            ],
        )


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Dict[Any, Result]:
    """What came of all cases; those of a world run side by side."""
    found: Dict[Any, Result] = {}
    for world, cases in cases_for(request.config.getoption("--full")).items():
        possible = [case for case in cases if HAPROXY or case.route != "haproxy"]
        play = play_all if world == "threads" else play_all_in_eventlet
        for has_shim, played in play(possible, HAPROXY or "").items():
            found.update(
                ((world, case, has_shim), result) for case, result in zip(possible, played)
            )
    return found


def play_all_in_eventlet(cases: List[Case], haproxy: str) -> Dict[bool, List[Result]]:
    script = "from worlds import enter; enter('eventlet'); import replay_scenes as r; r.main()"
    done = subprocess.run(
        [sys.executable, "-Werror", "-Wignore::DeprecationWarning", "-c", script],
        input=json.dumps({"cases": cases, "haproxy": haproxy}),
        env=clean_environ(**WITH_TESTS),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    without, with_it = json.loads(done.stdout)
    return {
        False: [Result(*result) for result in without],
        True: [Result(*result) for result in with_it],
    }


def test_the_table(
    world: str,
    case: Case,
    has_shim: bool,
    request: pytest.FixtureRequest,
) -> None:
    if case.route == "haproxy":
        request.getfixturevalue("haproxy_binary")
    results = request.getfixturevalue("results")
    assert results[world, case, has_shim] == expected(case, has_shim)


def test_every_pair_is_there() -> None:
    factors = [*FACTORS, WORLDS]

    def can_be(*case: str) -> bool:
        return is_possible(*case[:-1])

    chosen, everything = pairwise(factors, can_be), full_product(factors, can_be)
    assert set(chosen) <= set(everything)
    pairs = set().union(*map(pairs_of, chosen))
    assert pairs == set().union(*map(pairs_of, everything))
    assert len(chosen) < len(everything) / 8
