"""The main function of a measuring process; :class:`bench.child.Child` starts it and talks to it.

It calls the one function it was started for, and says what that returns, as JSON in a line. If that
is a function again, it stays, and calls it with whatever it is asked, until its stdin ends.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from bench import EVENTLET


def say(result: Any) -> None:
    print(json.dumps(result), flush=True)


def main(world: str, function: str, arguments: str) -> None:
    if world == EVENTLET:
        import eventlet

        eventlet.monkey_patch()
    module, _, name = function.partition(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    if not callable(result):
        say(result)
        return
    for line in sys.stdin:
        say(result(*json.loads(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
