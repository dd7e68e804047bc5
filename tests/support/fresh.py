"""Scripts in a fresh interpreter, which can import traffic.py."""

from __future__ import annotations

from conftest import child
from worlds import WITH_TESTS


def run(script: str, *args: object, **variables: str) -> str:
    """What a script prints. It must not warn."""
    done = child("-Werror", "-c", script, *args, env={**WITH_TESTS, **variables})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
