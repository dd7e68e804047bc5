"""The green worlds a client can live in; each test of one has a process of its own."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

_TESTS = Path(__file__).resolve().parent

#: for ``run_python(env=...)``: scripts that import this module and its neighbours
WITH_TESTS = {"PYTHONPATH": os.pathsep.join([str(_TESTS.parent), str(_TESTS)])}


def enter(world: str) -> None:
    """Monkey patch this process, as the first thing it does: ``eventlet`` or ``gevent``."""
    with warnings.catch_warnings():
        # eventlet speaks of its own future, cryptography of Python 3.8's
        warnings.simplefilter("ignore")
        if world == "eventlet":
            import eventlet

            eventlet.monkey_patch()
        else:
            from gevent import monkey

            monkey.patch_all()
