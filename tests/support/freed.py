"""What callers have is to be freed as they return, and not when the collector comes."""

import gc
import json
import os
import weakref
from importlib.util import find_spec

import pytest


def is_freed_under_eventlet(call_python, scene):
    """Do it in a green process.

    eventlet keeps a timeout in a frame of its own, which has the caller's below it.
    """
    if find_spec("eventlet") is None:
        pytest.skip("needs eventlet")
    found = call_python(say_if_it_is_freed, scene, world="eventlet")
    return found


def say_if_it_is_freed(scene):
    print(json.dumps(is_freed(scene)), flush=True)
    os._exit(0)  # the locks of eventlet 0.35 fail while the interpreter ends


def is_freed(scene):
    """Run a scene with the collector off; tell whether its caller's locals are freed after it."""

    def caller():
        local = {"something of the caller's"}
        scene()
        return weakref.ref(local)

    gc.collect()
    gc.disable()
    try:
        return caller()() is None
    finally:
        gc.enable()
