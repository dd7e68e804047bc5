"""Clients under eventlet and gevent: each test of one has a process of its own."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Dict

#: the directory of this module and its neighbours
SUPPORT = Path(__file__).resolve().parent

#: for a child process: its scripts import what tests import
WITH_TESTS = {
    "PYTHONPATH": os.pathsep.join(map(str, (SUPPORT.parent.parent, SUPPORT.parent, SUPPORT)))
}


def beside(test_file: str) -> Dict[str, str]:
    """The same for scripts that import the test module they stand in, too."""
    return {"PYTHONPATH": os.pathsep.join([WITH_TESTS["PYTHONPATH"], os.path.dirname(test_file)])}


_SCRIPT = """
    import freed, json, os
    import {0} as tests
    print(json.dumps({1}), flush=True)
    os._exit(0)  # the locks of eventlet 0.35 fail while the interpreter ends
"""


def under_eventlet(run_python: Any, test_file: str, expression: str) -> Any:
    """What an expression gives in a green process, where ``tests`` is that test module."""
    # eventlet leaves a TLS socket whose handshake failed to its finalizer, which warns
    flags = ["-Wignore:unclosed:ResourceWarning"]
    script = _SCRIPT.format(Path(test_file).stem, expression)
    return run_python(script, world="eventlet", env=beside(test_file), flags=flags)


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
