"""The Python in which a command runs: found in the command's file, and asked for stalepool."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from itertools import takewhile
from typing import List, Mapping

#: exit status of a Python that has started without stalepool; no crash has it
_WITHOUT = 63
# not the package: a directory of its name, as pip may leave one behind, is one, too (PEP 420)
_ASK = "import sys; sys.exit('stalepool.bootstrap' not in sys.modules and %d)" % _WITHOUT
_LONGEST_START_S = 10

_OPTIONS = re.compile("-[BEIOPSbdqsuvx]+")  # those that take no argument


def python_of(words: List[str]) -> List[str]:
    """Return the Python that a command line starts, with its options.

    :returns: empty if the command is neither a Python nor a script that names one.
    """
    file = shutil.which(words[0])
    if file is None:
        return []
    start = [file, *words[1:]] if _is_python(file) else _interpreter_of(file)
    if not start or not _is_python(start[0]):
        return []
    return [start[0], *takewhile(_OPTIONS.fullmatch, start[1:])]


def hiding_option(python: List[str]) -> str:
    """Return the option with which a Python runs no sitecustomize of PYTHONPATH, or an empty text.

    With ``-S`` it runs no ``stalepool-start.pth`` either.
    """
    options = "".join(python[1:])
    return next(("-" + letter for letter in "SIE" if letter in options), "")


def comes_up_without(python: List[str], environ: Mapping[str, str]) -> bool:
    """Start a Python, and tell whether stalepool is missing in it; False if it cannot say."""
    try:
        done = subprocess.run(
            [*python, "-c", _ASK],
            check=False,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LONGEST_START_S,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return False
    return done.returncode == _WITHOUT


def _is_python(file: str) -> bool:
    return re.fullmatch(r"python[\d.]*t?", os.path.basename(file)) is not None


def _interpreter_of(script: str) -> List[str]:
    """Return the words of a script's first line."""
    try:
        with open(script, "rb") as file:
            first, second = (os.fsdecode(file.readline(4096)) for _ in range(2))
        if not first.startswith("#!"):
            return []
        words = shlex.split(first[2:])
        if words[:1] == ["/bin/sh"]:  # pip's way to a Python whose path is long or has a space
            words = shlex.split(second) if second.startswith("'''exec' ") else []
            return words[1:]
    except (OSError, ValueError):
        return []
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word != "-S"]
        return [shutil.which(words[0]) or "", *words[1:]] if words else []
    return words
