"""What callers have is to be freed as they return, and not when the collector comes."""

from __future__ import annotations

import gc
import json
import os
import weakref
from importlib.util import find_spec
from typing import Any, Callable

import pytest


def is_freed_under_eventlet(call_python: Any, scene: Callable[[], Any]) -> bool:
    """Do it in a green process.

    eventlet keeps a timeout in a frame of its own, which has the caller's below it.
    """
    if find_spec("eventlet") is None:
        pytest.skip("needs eventlet")
    found: bool = call_python(say_if_it_is_freed, scene, world="eventlet")
    return found


def say_if_it_is_freed(scene: Callable[[], Any]) -> None:
    print(json.dumps(is_freed(scene)), flush=True)
    os._exit(0)  # the locks of eventlet 0.35 fail while the interpreter ends


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
