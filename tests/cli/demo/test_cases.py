"""The cases of the demo, held against outcomes."""

import pytest

from stalepool.cli.demo.cases import CASES, selected
from stalepool.cli.demo.outcome import Answer, Did, Impossible, Race


def answer(status, asked=1, **judged):
    return Answer(status, 0.0, "", asked, Did(judged, {}))


def race(requests, failures):
    return Race(requests, failures, 0.0, "", Did({}, {}))


@pytest.mark.parametrize(
    ("name", "outcome", "ok"),
    [
        ("fin-idle", answer(200, alive=1), False),
        ("fin-idle", answer(500, closed=1), False),
        ("rst-idle", answer(200, reset=1), True),
        ("surplus-408", answer(200, unread=1), True),
        ("fin-on-arrival", answer(500), False),
        ("rst-on-arrival", answer(200, asked=2), True),
        ("busy-worker", race(9, 0), True),
        ("busy-worker", race(9, 1), False),
        ("busy-worker", race(0, 0), False),
        ("black-hole", Impossible("not here"), None),
        ("path-away", answer(200, asked=2, alive=1), False),
        ("select-hang", answer(None), False),
    ],
)
def test_what_a_row_meets(name, outcome, ok):
    (case,) = selected([name])
    assert case.is_met(outcome) is ok and case in CASES
