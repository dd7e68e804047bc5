"""Exceptions that somebody else's code raises in the midst of ours: they are the caller's."""

from __future__ import annotations

import signal
from typing import Any, Callable

import pytest

import injection
import lanes
from worlds import WITH_TESTS


@pytest.mark.full
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_a_signal_handlers_exception_is_lost_no_more_often_than_without_us(
    run_python: Callable[..., Any],
) -> None:
    """Some are lost in any case, in finalizers of http.client's responses."""
    script = "from support import injection; injection.alarms(500)"
    seen = run_python(script, env=WITH_TESTS, flags=["-Wignore"])
    assert injection.is_as_many(seen["stock"][1], seen["shim"][1]), seen


@pytest.mark.parametrize("scene", lanes.first(1, injection.SCENES))
def test_an_exception_at_any_line_of_ours_reaches_the_caller(
    run_python: Callable[..., Any], scene: str
) -> None:
    script = "import sys; from support import injection; injection.injected(sys.argv[1])"
    seen = run_python(script, scene, env=WITH_TESTS, flags=["-Wignore"])
    assert seen["lost"] == [] and seen["broken"] == []
    assert seen["injected"] > 50
