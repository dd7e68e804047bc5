"""``stalepool run`` and ``stalepool path``: start-up injection for programs one cannot edit.

PYTHONPATH gets one directory, with nothing in it but a ``sitecustomize.py``, which Python runs at
start-up. Child processes inherit it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Dict, Optional

from stalepool.cli.owners import first_in_other_hands
from stalepool.settings import Settings, SettingsError

PACKAGE_DIR = Path(__file__).resolve().parent.parent
INJECT_DIR = PACKAGE_DIR / "inject"

CANNOT_INJECT, USAGE_ERROR = 1, 2
CANNOT_EXECUTE, NOT_FOUND = 126, 127  # as a shell has it, POSIX 2.8.2


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [-h] CMD [ARGS]"
    # one list, since argparse would take a "--" between a CMD of its own and the ARGS for itself
    parser.add_argument(
        "words",
        metavar="CMD [ARGS]",
        nargs=argparse.REMAINDER,
        help="the program to start, as a shell finds it, and its arguments, untouched",
    )


def run(args: argparse.Namespace) -> int:
    """Become the command, with the shim injected. Returns only if that cannot be."""
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not words or not words[0]:
        return _refuse("run: CMD is missing, see stalepool run --help", USAGE_ERROR)
    try:
        Settings.from_environ(os.environ)
    except SettingsError as error:
        return _refuse("run: %s" % error, USAGE_ERROR)
    reason = why_not_injectable(INJECT_DIR)
    if reason is not None:
        return _refuse("run: %s" % reason, CANNOT_INJECT)
    changeable = first_in_other_hands(PACKAGE_DIR)
    if changeable is not None:
        return _refuse(
            "run: %s may be written to by other users, who could so run code in CMD: change its "
            "owner or its permissions, or install elsewhere" % changeable,
            USAGE_ERROR,
        )
    for name in {"SIGPIPE", "SIGXFSZ"} & set(dir(signal)):
        signal.signal(getattr(signal, name), signal.SIG_DFL)  # Python ignores them, CMD may not
    try:
        os.execvpe(words[0], words, injected(dict(os.environ)))
    except (OSError, ValueError) as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)) or not _is_there(words[0]):
            return _refuse("run: %s: command not found" % words[0], NOT_FOUND)
        why = getattr(error, "strerror", None) or error
        return _refuse("run: %s: cannot execute: %s" % (words[0], why), CANNOT_EXECUTE)


def path(args: argparse.Namespace) -> int:
    """Print the directory to put first on PYTHONPATH."""
    reason = why_not_injectable(INJECT_DIR)
    if reason is not None:
        return _refuse("path: %s" % reason, CANNOT_INJECT)
    print(INJECT_DIR)
    return 0


def why_not_injectable(directory: Path) -> Optional[str]:
    """What keeps this directory from doing anything on PYTHONPATH, or None."""
    if not (directory / "sitecustomize.py").is_file():
        return "%s has no sitecustomize.py: install stalepool anew, and unpacked" % directory
    if os.pathsep in str(directory):
        return "%s has a %r in its path, which PYTHONPATH would be split at: install elsewhere" % (
            directory,
            os.pathsep,
        )
    return None


def injected(environ: Dict[str, str]) -> Dict[str, str]:
    """The environment with our directory first on PYTHONPATH, once.

    Empty elements are dropped: to Python they mean the working directory, whoever owns it.
    """
    rest = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    parts = [str(INJECT_DIR)] + [part for part in rest if part != str(INJECT_DIR)]
    return {**environ, "PYTHONPATH": os.pathsep.join(parts)}


def _is_there(command: str) -> bool:
    """Whether it is on PATH at all; an entry of PATH that may not be looked into has nothing."""
    return os.sep in command or shutil.which(command, mode=os.F_OK) is not None


def _refuse(sentence: str, exit_status: int) -> int:
    try:
        sys.stderr.write("stalepool %s\n" % sentence)
    except (OSError, ValueError, AttributeError):  # no stderr; the status tells as much
        pass
    return exit_status
