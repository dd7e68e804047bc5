"""What the tests of a connection share."""

from __future__ import annotations

from typing import Iterator

import pytest

import stalepool
from outages import Sleeper
from pools import forget_what_was_counted


@pytest.fixture
def defaults() -> Iterator[None]:
    """Stalepool's own settings, and again after a test that has set others; counters at zero.

    A server may have the port of one in an earlier test.
    """
    stalepool.install()
    forget_what_was_counted()
    yield
    stalepool.install()


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> Sleeper:
    """What urllib3 sleeps with, and so what we do while a connect is tried again."""
    sleeper = Sleeper()
    monkeypatch.setattr("urllib3.util.retry.time", sleeper)
    return sleeper
