"""``stalepool run`` and ``stalepool path``: start-up injection for programs one cannot edit.

PYTHONPATH gets one directory, with nothing in it but a ``sitecustomize.py``, which Python runs at
start-up. Child processes inherit it.
"""

from __future__ import annotations

import argparse
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Dict, List, Optional

from stalepool.settings import Settings, SettingsError

INJECT_DIR = Path(__file__).resolve().parent.parent / "inject"

USAGE_ERROR, CANNOT_EXECUTE, NOT_FOUND = 2, 126, 127  # as a shell has it, POSIX 2.8.2


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
        return _refuse("CMD is missing, see stalepool run --help", USAGE_ERROR)
    try:
        Settings.from_environ(os.environ)
    except SettingsError as error:
        return _refuse("%s" % error, USAGE_ERROR)
    writable = first_writable_by_others(INJECT_DIR)
    if writable is not None:
        return _refuse(
            "%s may be written to by other users, who could then run code in every process that "
            "has it on PYTHONPATH: take the permission away, or install elsewhere" % writable,
            USAGE_ERROR,
        )
    for name in {"SIGPIPE", "SIGXFSZ"} & set(dir(signal)):
        signal.signal(getattr(signal, name), signal.SIG_DFL)  # Python ignores them, CMD may not
    try:
        os.execvpe(words[0], words, injected(dict(os.environ)))
    except (FileNotFoundError, NotADirectoryError):
        return _refuse("%s: command not found" % words[0], NOT_FOUND)
    except (OSError, ValueError) as error:
        return _refuse("%s: cannot execute: %s" % (words[0], error), CANNOT_EXECUTE)


def path(args: argparse.Namespace) -> int:
    """Print the directory to put first on PYTHONPATH."""
    print(INJECT_DIR)
    return 0


def injected(environ: Dict[str, str]) -> Dict[str, str]:
    """The environment with our directory first on PYTHONPATH, once.

    Empty elements are dropped: to Python they mean the working directory, whoever owns it.
    """
    rest = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    parts = [str(INJECT_DIR)] + [part for part in rest if part != str(INJECT_DIR)]
    return {**environ, "PYTHONPATH": os.pathsep.join(parts)}


def first_writable_by_others(directory: Path) -> Optional[Path]:
    """The first of all in the directory, itself and its parents that other users may change.

    A sticky directory (/tmp) does not count for what lies in it: others cannot replace that there.
    """
    below: List[Path] = [*sorted(directory.rglob("*")), directory]
    for place in [*below, *directory.parents]:
        status = place.stat()
        is_shared = bool(status.st_mode & stat.S_IWOTH)
        is_sticky_parent = place not in below and bool(status.st_mode & stat.S_ISVTX)
        if is_shared and not is_sticky_parent:
            return place
    return None


def _refuse(sentence: str, exit_status: int) -> int:
    try:
        sys.stderr.write("stalepool run: %s\n" % sentence)
    except (OSError, ValueError, AttributeError):  # no stderr; the status tells as much
        pass
    return exit_status
