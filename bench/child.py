"""A process of its own for everything that is measured, seen from outside: :mod:`bench.inside`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, TypeVar

from bench import THREADS

ROOT = Path(__file__).resolve().parent.parent

# eventlet speaks of its own future, urllib3 and cryptography of Python 3.8's
_PYTHON = (sys.executable, "-Wignore")

C = TypeVar("C", bound="Child")


class ChildFailed(Exception):
    """A measuring process ended with an error; the text is what it had to say."""


class Child:
    """A measuring process that waits to be asked; leaving the ``with`` block ends it.

    :param function: ``"module:name"``.
    :param hash_seed: two that are compared get the same, so that their dicts lie alike.
    :param arguments: for the function; what JSON can carry.
    """

    def __init__(
        self, function: str, world: str = THREADS, hash_seed: int = 0, **arguments: Any
    ) -> None:
        self._process = subprocess.Popen(
            [*_PYTHON, "-m", "bench.inside", world, function, json.dumps(arguments)],
            cwd=ROOT,
            env=environ(PYTHONHASHSEED=str(hash_seed)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()  # closes its stdin, which ends it

    def ask(self, *arguments: Any) -> Any:
        """Have it do one piece of work, and wait for the result."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(arguments) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone; what it said is read below
        return self.read()

    def read(self) -> Any:
        """Return what it says next.

        :raises ChildFailed: it ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(self._process.communicate()[1].strip())
        return json.loads(line)


def call(function: str, world: str = THREADS, **arguments: Any) -> Any:
    """Have a new process call a function, and return what it returns."""
    with Child(function, world, **arguments) as child:
        return child.read()


def environ(**variables: str) -> Dict[str, str]:
    """Return this process's environment without ``STALEPOOL_*``, which may keep its bytecode."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STALEPOOL_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, **variables}
