"""What the tests of the doctor share."""

import json

import pytest

from conftest import REPOSITORY, child
from stalepool.cli.doctor.command import LEVELS, OK


@pytest.fixture(autouse=True)
def pythonpath(monkeypatch):
    """Lead the programs that are examined to this checkout, wherever they run."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


@pytest.fixture
def doctor(stalepool_here):
    """``stalepool doctor WORDS``: a line for each finding, with level, question, what it says."""
    return lambda *words: _found(stalepool_here("doctor", "--json", *words))


@pytest.fixture
def environment():
    """The same of a Python of its own, with these variables, which has imported nothing yet."""
    return lambda **variables: _found(child("-m", "stalepool", "doctor", "--json", env=variables))


def _found(done):
    """The exit status is the worst level."""
    found = json.loads(done.stdout)["findings"]
    assert all(bool(each["remedy"]) == (each["level"] != OK) for each in found)
    assert done.returncode == max(LEVELS.index(each["level"]) for each in found)
    return "".join("\n%(level)s %(question)s: %(says)s" % each for each in found)
