"""Clients under eventlet and gevent: each test of one has a process of its own."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Dict

#: the directory of this module and its neighbours
SUPPORT = Path(__file__).resolve().parent

#: for a child process: its scripts import what tests import
WITH_TESTS = {
    "PYTHONPATH": os.pathsep.join(map(str, (SUPPORT.parent.parent, SUPPORT.parent, SUPPORT)))
}


def beside(*test_files: str) -> Dict[str, str]:
    """The same for scripts that import these test files, too."""
    folders = map(os.path.dirname, test_files)
    return {"PYTHONPATH": os.pathsep.join([WITH_TESTS["PYTHONPATH"], *folders])}


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
