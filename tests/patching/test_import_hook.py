"""The finder, called directly; test_import_hook_orders.py has whole processes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Iterator

import pytest
import urllib3

import stalepool
from breaks import breaks
from stalepool.patching import import_hook


@pytest.fixture
def finder() -> Iterator[Any]:
    yield import_hook._finder
    stalepool.install()


def fail(*args: Any) -> Any:
    pytest.fail("asked with %r" % (args,))


def test_everybody_elses_imports_are_asked_for_a_word_alone(finder: Any) -> None:
    with breaks("place of a copy", by=fail):
        assert finder.find_spec("of_no_interest") is None


@pytest.mark.parametrize(
    "name",
    ["urllib3_of_theirs", "urllib3.util", "urllib3.no_such_module", "no_such_package.urllib3"],
)
def test_what_is_not_patched_or_not_found_is_not_watched(finder: Any, name: str) -> None:
    assert finder.find_spec(name, urllib3.__path__) is None


def test_a_finder_that_was_taken_out_meanwhile_finds_nothing(finder: Any) -> None:
    """The interpreter goes on through the list that it began with."""
    stalepool.uninstall()
    assert finder.find_spec("urllib3.connectionpool", urllib3.__path__) is None


def test_a_load_that_ends_after_an_uninstall_patches_nothing(finder: Any) -> None:
    stalepool.uninstall()
    pool = urllib3.connectionpool
    assert finder.load("urllib3.connectionpool", lambda: pool) is pool
    assert not hasattr(urllib3.connectionpool.is_connection_dropped, "__wrapped__")


@pytest.mark.parametrize("has_failed", [False, True])
def test_at_work_it_is_not_off(finder: Any, has_failed: bool, monkeypatch: Any) -> None:
    """What was patched goes on where the next copy fails."""
    monkeypatch.setattr(finder, "has_failed", has_failed)
    assert (finder.is_at_work(), finder.why_off()) == (True, None)


def test_refused_it_says_why(finder: Any) -> None:
    import_hook.register(refused="a wrong setting")
    assert not stalepool.is_installed()
    assert stalepool.snapshot()["off_because"] == "a wrong setting"


def test_without_wrapt_it_says_so(finder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "loaded", None)
    monkeypatch.setitem(sys.modules, "wrapt", None)
    assert not finder.is_at_work()
    assert finder.why_off() == "wrapt cannot be imported"


def test_where_nothing_was_patched_nothing_is_undone() -> None:
    assert import_hook._Finder().retire() == []


def test_whoever_stands_for_wrapt_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stub that has no spec cannot be."""
    monkeypatch.setitem(sys.modules, "wrapt", ModuleType("wrapt"))
    assert import_hook._wrapt_is_there()
