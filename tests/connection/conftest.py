"""What the tests of a connection share."""

from __future__ import annotations

from typing import Iterator

import pytest

import stalepool


@pytest.fixture
def defaults() -> Iterator[None]:
    """Stalepool's own settings, and again after a test that has set others."""
    stalepool.install()
    yield
    stalepool.install()
