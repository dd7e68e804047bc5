"""Falls back to urllib3: how each reason is counted."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Iterator

import pytest

from stalepool import fallback

PACKAGE = Path(fallback.__file__).parent


@pytest.fixture(autouse=True)
def from_zero() -> Iterator[None]:
    fallback.forget()
    yield
    fallback.forget()


def test_the_reasons_are_those_that_the_package_counts() -> None:
    counted = re.compile(r'(?:fall_back|guarded)\(\s*"(\w+)"')
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    assert {reason for text in texts for reason in counted.findall(text)} == set(fallback.REASONS)


@pytest.mark.parametrize("reason", fallback.REASONS)
def test_each_reason_is_counted_and_said_once(reason: str, caplog: Any) -> None:
    @fallback.guarded(reason, default="left to urllib3")
    def fail() -> None:
        raise RuntimeError("broken")

    assert [fail(), fail()] == ["left to urllib3"] * 2
    assert fallback.counts() == {reason: 2}
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelno == logging.WARNING
    assert reason in said and fallback.REASONS[reason] in said and "broken" in said


def test_what_a_guarded_function_returns_is_returned() -> None:
    assert fallback.guarded("check_failed", 1)(lambda: 2)() == 2
