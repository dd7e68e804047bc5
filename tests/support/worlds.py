"""Clients under eventlet and gevent: each test of one has a process of its own."""

import json
import os
import sys
import warnings
from pathlib import Path

#: the directory of this module and its neighbours
SUPPORT = Path(__file__).resolve().parent

#: for a child process: its scripts import what tests import
WITH_TESTS = {
    "PYTHONPATH": os.pathsep.join(map(str, (SUPPORT.parent.parent, SUPPORT.parent, SUPPORT)))
}


def beside(*test_files):
    """The same for scripts that import these test files, too."""
    folders = map(os.path.dirname, test_files)
    return {"PYTHONPATH": os.pathsep.join([WITH_TESTS["PYTHONPATH"], *folders])}


def in_a_fork(act, then=lambda: None):
    """What a function returns in a child, as JSON has it; that does the other, and is gone."""
    ear, mouth = os.pipe()
    child = os.fork()
    if not child:
        if "eventlet" in sys.modules:
            from eventlet import hubs

            hubs.use_hub()  # as services do: the parent's epoll is not the child's
        said = act()
        then()
        os.write(mouth, json.dumps(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(mouth)
    with os.fdopen(ear) as file:
        return json.load(file)


def enter(world):
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
