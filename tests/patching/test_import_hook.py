"""The finder, called directly; test_import_hook_orders.py has whole processes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Iterator

import pytest
import urllib3
import wrapt

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


def test_a_finder_that_was_taken_out_meanwhile_finds_and_patches_nothing(finder: Any) -> None:
    """The interpreter goes on through the list that it began with, or through a load."""
    stalepool.uninstall()
    assert finder.find_spec("urllib3.connectionpool", urllib3.__path__) is None
    pool = urllib3.connectionpool
    assert finder.load("urllib3.connectionpool", lambda: pool) is pool
    assert not hasattr(pool.is_connection_dropped, "__wrapped__")


#: attributes of the finder, what stands for wrapt -> why nothing is patched, None if something is
OFF = {
    "at work": ({}, wrapt, None),
    "the next copy has failed": ({"has_failed": True}, wrapt, None),
    "refused": ({"refused": "a wrong setting"}, wrapt, "a wrong setting"),
    "no wrapt": ({"loaded": None}, None, "wrapt cannot be imported"),
    # it has no spec, so it must not be looked up
    "a stub of wrapt": ({"loaded": None}, ModuleType("wrapt"), None),
}


@pytest.mark.parametrize("name", OFF)
def test_why_it_is_off(name: str, finder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes, module, why = OFF[name]
    for attribute, value in attributes.items():
        monkeypatch.setattr(finder, attribute, value)
    monkeypatch.setitem(sys.modules, "wrapt", module)
    assert (finder.is_at_work(), finder.why_off()) == (why is None, why)


def test_where_nothing_was_patched_nothing_is_undone() -> None:
    assert import_hook._Finder().retire() == []
