"""What callers have is to be freed as they return, and not when the collector comes."""

from __future__ import annotations

import gc
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable

import pytest

from worlds import beside

_SCRIPT = """
    import json, os
    import {0} as tests
    from freed import is_freed
    print(json.dumps(is_freed(tests.{1})), flush=True)
    os._exit(0)  # the locks of eventlet 0.35 fail while the interpreter ends
"""


def is_freed_under_eventlet(run_python: Any, test_file: str, scene: str) -> bool:
    """Do it in a green process; the scene is named, and stands in that test module.

    eventlet keeps a timeout in a frame of its own, which has the caller's below it.
    """
    if find_spec("eventlet") is None:
        pytest.skip("needs eventlet")
    script = _SCRIPT.format(Path(test_file).stem, scene)
    found: bool = run_python(script, world="eventlet", env=beside(test_file))
    return found


def is_freed(scene: Callable[[], Any]) -> bool:
    """Run a scene with the collector off; tell whether its caller's locals are freed after it."""

    def caller() -> Any:
        local = {"something of the caller's"}
        scene()
        return weakref.ref(local)

    gc.collect()
    gc.disable()
    try:
        return caller()() is None
    finally:
        gc.enable()
