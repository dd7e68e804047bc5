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


_CALL = """
    import json
    import {0} as tests
    print(json.dumps(tests.{1}(tests.{2})))
"""


def under_eventlet(run_python: Any, test_file: str, *names: str) -> Any:
    """What a function of a test module returns of a table there, in a green process."""
    # eventlet leaves a TLS socket whose handshake failed to its finalizer, which warns
    flags = ["-Wignore:unclosed:ResourceWarning"]
    script = _CALL.format(Path(test_file).stem, *names)
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
