"""``stalepool run`` and ``stalepool path``: injection at start-up, for programs one cannot edit.

PYTHONPATH gets one directory, with only a ``sitecustomize.py`` in it, which Python runs at
start-up. Child processes inherit PYTHONPATH.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Dict, List, Optional

from stalepool.cli import interpreter, owners
from stalepool.settings import Settings, SettingsError

PACKAGE_DIR = Path(__file__).resolve().parent.parent
INJECT_DIR = PACKAGE_DIR / "inject"

CANNOT_INJECT, USAGE_ERROR = 1, 2
CANNOT_EXECUTE, NOT_FOUND = 126, 127  # as a shell has it, POSIX 2.8.2


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [-h] [--trust USER] CMD [ARGS]"
    parser.add_argument(
        "--trust",
        metavar="USER",
        action="append",
        default=[],
        type=_user,
        help="a user who may change stalepool's files, besides root and yourself, such as the one "
        "who deploys them; may be given several times",
    )
    add_command(parser)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Add a command line, which :func:`command_of` returns."""
    # one list, since argparse would remove a "--" between a separate CMD and its ARGS
    parser.add_argument(
        "words",
        metavar="CMD [ARGS]",
        nargs=argparse.REMAINDER,
        help="the program to start, as a shell finds it, and its arguments, untouched",
    )


def command_of(args: argparse.Namespace) -> List[str]:
    words: List[str] = args.words
    return words[1:] if words[:1] == ["--"] else words


def run(args: argparse.Namespace) -> int:
    """Become the command, with the shim injected. Returns only if that fails."""
    words = command_of(args)
    if not words or not words[0]:
        return _refuse("run: CMD is missing, see stalepool run --help", USAGE_ERROR)
    try:
        Settings.from_environ(os.environ)
    except SettingsError as error:
        return _refuse("run: %s" % error, USAGE_ERROR)
    reason = why_not_injectable(INJECT_DIR)
    if reason is not None:
        return _refuse("run: %s" % reason, CANNOT_INJECT)
    found = owners.first_writable_by_others(PACKAGE_DIR, args.trust)
    if found is not None:
        return _refuse(
            "run: %s %s, who could run code in CMD by that: change its owner or its permissions, "
            "install elsewhere, or pass --trust USER for each user who may" % found,
            USAGE_ERROR,
        )
    environ = injected(inherited())
    python = interpreter.python_of(words)
    if python and interpreter.comes_up_without(python, environ):
        _say(
            "run: %s starts without stalepool: %s does not find it. Install it there; if -E or -I "
            "hides PYTHONPATH, set STALEPOOL=1" % (words[0], " ".join(python))
        )
    ignored = {"SIGPIPE", "SIGXFSZ"} & set(dir(signal))  # by Python, CMD may not
    if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        ignored.discard("SIGPIPE")  # by systemd, too: IgnoreSIGPIPE=, systemd.exec(5)
    for name in ignored:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    return _become(words, environ)


def _become(words: List[str], environ: Dict[str, str]) -> int:
    """Replace this process, as execvp(3) does; return only if that fails."""
    program = shutil.which(words[0])
    if program is None:
        if not _is_there(words[0]):
            return _refuse("run: %s: command not found" % words[0], NOT_FOUND)
        return _cannot_execute(words[0], os.strerror(errno.EACCES))
    try:
        try:
            os.execve(program, words, environ)
        except OSError as error:
            if error.errno != errno.ENOEXEC or not _is_text(program):
                raise
            os.execve("/bin/sh", ["/bin/sh", program, *words[1:]], environ)  # it has no "#!"
    except OSError as error:
        return _cannot_execute(words[0], str(error.strerror))


def _cannot_execute(command: str, why: str) -> int:
    return _refuse("run: %s: cannot execute: %s" % (command, why), CANNOT_EXECUTE)


def path(args: argparse.Namespace) -> int:
    """Print the directory to put first on PYTHONPATH."""
    reason = why_not_injectable(INJECT_DIR)
    if reason is not None:
        return _refuse("path: %s" % reason, CANNOT_INJECT)
    print(INJECT_DIR)
    return 0


def why_not_injectable(directory: Path) -> Optional[str]:
    """Return why this directory would do nothing on PYTHONPATH; None if it works."""
    if not (directory / "sitecustomize.py").is_file():
        return "%s has no sitecustomize.py: install stalepool anew, and unpacked" % directory
    if os.pathsep in str(directory):
        return "%s has a %r in its path, which PYTHONPATH would be split at: install elsewhere" % (
            directory,
            os.pathsep,
        )
    return None


def inherited() -> Dict[str, str]:
    """Return the environment that this process was given; Python may add LC_CTYPE: PEP 538."""
    environ = dict(os.environ)
    with contextlib.suppress(OSError):
        if b"LC_CTYPE=" not in Path("/proc/self/environ").read_bytes():
            environ.pop("LC_CTYPE", None)
    return environ


def injected(environ: Dict[str, str]) -> Dict[str, str]:
    """Return the environment with our directory first on PYTHONPATH, once; the rest unchanged."""
    rest = environ.get("PYTHONPATH")
    # an empty PYTHONPATH is none; an empty element of one is the working directory
    places = [place for place in rest.split(os.pathsep) if place != str(INJECT_DIR)] if rest else []
    return {**environ, "PYTHONPATH": os.pathsep.join([str(INJECT_DIR), *places])}


def _user(word: str) -> int:
    try:
        return owners.uid_of(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error))


def _is_there(command: str) -> bool:
    """Tell whether it is there at all; entries of PATH that cannot be read are skipped."""
    if os.sep in command:
        return os.path.exists(command)
    return shutil.which(command, mode=os.F_OK) is not None


def _is_text(program: str) -> bool:
    """Tell whether it is no binary, as shells do."""
    with open(program, "rb") as file:
        return b"\0" not in file.read(80)


def _refuse(sentence: str, exit_status: int) -> int:
    _say(sentence)
    return exit_status


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):  # the status tells as much
        sys.stderr.write("stalepool %s\n" % sentence)
