"""Falls back to urllib3: which exceptions are ours to catch, and how each reason is counted."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from stalepool import fallback

PACKAGE = Path(fallback.__file__).parent

#: packages whose code runs because we call it
CALLED = [
    *("stalepool", "urllib3", "http", "email", "socket", "ssl", "select", "struct", "copy"),
    *("weakref", "functools", "contextvars", "logging", "eventlet", "gevent", "OpenSSL", "wrapt"),
    *("inspect", "importlib", "socks", "greenlet", "pytest_socket", "beartype"),
    "pip._vendor.urllib3.connection",
]


@pytest.fixture(autouse=True)
def from_zero() -> Iterator[None]:
    fallback.forget()
    yield
    fallback.forget()


def failing_in(name: str, raised: str = "Theirs") -> Callable[[], Any]:
    """A function of a module of this name, which raises."""
    module = types.ModuleType(name)
    exec("class Theirs(Exception): pass\ndef fail(): raise %s('x')" % raised, vars(module))
    return module.fail  # type: ignore[no-any-return]


def test_the_reasons_are_those_that_the_package_counts() -> None:
    counted = re.compile(r'(?:fall_back|guarded)\(\s*"(\w+)"')
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    assert {reason for text in texts for reason in counted.findall(text)} == set(fallback.REASONS)


@pytest.mark.parametrize("reason", fallback.REASONS)
def test_each_reason_is_counted_and_explained(reason: str, caplog: Any) -> None:
    @fallback.guarded(reason, default="left to urllib3")
    def fail() -> None:
        raise RuntimeError("broken")

    assert [fail(), fail()] == ["left to urllib3"] * 2
    assert fallback.counts() == {reason: 2}
    assert fallback.REASONS[reason] in caplog.text and "broken" in caplog.text


@pytest.mark.parametrize("name", CALLED)
def test_what_is_raised_by_who_we_call_is_caught(name: str) -> None:
    assert fallback.guarded("check_failed", "caught")(failing_in(name))() == "caught"


def test_what_is_raised_by_anybody_else_passes_through() -> None:
    """The interpreter called it: a signal handler, a timer, a tracer."""
    with pytest.raises(Exception, match="x"):
        fallback.guarded("check_failed")(failing_in("of_the_application"))()
    assert fallback.counts() == {}


def test_a_builtin_exception_is_ours_whoever_raised_it() -> None:
    """It cannot be told from one that we caused."""
    fail = failing_in("of_the_application", "ValueError")
    assert fallback.guarded("check_failed", "caught")(fail)() == "caught"


def test_a_timeout_is_the_callers() -> None:
    """Nothing that is guarded waits."""
    fail = failing_in("of_the_application", "TimeoutError")
    with pytest.raises(TimeoutError):
        fallback.guarded("check_failed")(fail)()


def test_an_exception_that_was_not_raised_is_nobodys() -> None:
    class Theirs(Exception):
        pass

    assert not fallback.is_foreign(Theirs())
    assert not fallback.is_a_sockets_timeout(None)


def test_what_a_guarded_function_returns_is_returned() -> None:
    assert fallback.guarded("check_failed", 1)(lambda: 2)() == 2
