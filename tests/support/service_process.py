"""A service in a process of its own, and ``stalepool status`` asked about it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

from conftest import clean_environ

SERVICE = """
import os, signal, sys
import stalepool, urllib3
pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
def ask(method="GET"):
    try:
        pool.request(method, "/a/path?token=secret", headers={"X": "secret"})
    except urllib3.exceptions.HTTPError:
        pass
"""


class Started:
    """A child that runs a script, says when it is there, and ends when it is told to."""

    def __init__(
        self, script: str, *args: object, command: Any = (sys.executable,), **variables: str
    ) -> None:
        environ = clean_environ(**variables)
        self.process = subprocess.Popen(
            [
                *[*command, "-c", textwrap.dedent(script) + WAIT],
                *map(str, args),
            ],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().split()

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.err = self.process.communicate(timeout=30)[1]


WAIT = "\nprint('ready', *globals().get('said', ()), flush=True)\nsys.stdin.read()\n"


def stalepool_status(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stalepool", "status", *words],
        env=clean_environ(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
