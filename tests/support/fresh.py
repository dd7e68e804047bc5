"""Scripts in a fresh interpreter, which can import traffic.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import clean_environ


def run(script: str, *args: object, **variables: str) -> str:
    """What a script prints; its arguments begin with ``sys.argv[2]``. It must not warn."""
    here = Path(__file__).resolve().parent
    script = "import sys; sys.path.insert(0, sys.argv[1])\n" + script
    done = subprocess.run(
        [sys.executable, "-Werror", "-c", script, *map(str, (here, *args))],
        env=clean_environ(**variables),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
