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
from pathlib import Path
from typing import Dict, List, NoReturn

from stalepool.cli import interpreter, owners
from stalepool.cli.complaint import USAGE_ERROR, Complaint, say
from stalepool.settings import Settings, SettingsError

PACKAGE_DIR = Path(__file__).resolve().parent.parent
INJECT_DIR = PACKAGE_DIR / "inject"

CANNOT_EXECUTE, NOT_FOUND = 126, 127  # as a shell has it, POSIX 2.8.2


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=run)
    parser.description = (
        "Start CMD with the shim injected into it and its Python children. The exit "
        "status is CMD's; 127 if CMD is not found, 126 if it cannot be executed, 1 if this "
        "installation cannot be injected. It is 2, and nothing is started, if a setting is wrong, "
        "or if users other than root, yourself and those of --trust may change stalepool's files "
        "or a directory above them: as the owner, as a member of the group, or because everybody "
        "may. The files on PYTHONPATH stay, and are not checked, since Python would load them "
        "without stalepool, too. If CMD is a script or a Python, and that Python has no "
        "stalepool, CMD starts all the same, and a line on stderr says so."
    )
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


def add_path_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=path)
    parser.description = (
        "Print the directory that switches the shim on if it is first on PYTHONPATH; "
        "exit with 1 if there is none."
    )


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


def run(args: argparse.Namespace) -> NoReturn:
    """Become the command, with the shim injected.

    :raises Complaint: it cannot.
    """
    words = command_of(args)
    if not words or not words[0]:
        raise Complaint("CMD is missing, see stalepool run --help", USAGE_ERROR)
    try:
        Settings.from_environ(os.environ)
    except SettingsError as error:
        raise Complaint(str(error), USAGE_ERROR)
    require_injectable()
    found = owners.first_writable_by_others(PACKAGE_DIR, args.trust)
    if found is not None:
        raise Complaint(
            "%s %s, who could run code in CMD by that: change its owner or its permissions, "
            "install elsewhere, or pass --trust USER for each user who may" % found,
            USAGE_ERROR,
        )
    environ = injected(inherited())
    python = interpreter.python_of(words)
    if python and interpreter.comes_up_without(python, environ):
        says = "%s starts without stalepool: %s"
        say("stalepool run", says % (words[0], _why_without(python)))
    ignored = {"SIGPIPE", "SIGXFSZ"} & set(dir(signal))  # by Python, CMD may not
    if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        ignored.discard("SIGPIPE")  # by systemd, too: IgnoreSIGPIPE=, systemd.exec(5)
    if "SUPERVISOR_ENABLED" in os.environ:  # supervisord is a Python, and hands both on
        ignored.clear()
    for name in ignored:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    _become(words, environ)


def _why_without(python: List[str]) -> str:
    option = interpreter.hiding_option(python)
    if option == "-S":
        return "-S skips sitecustomize, and the file of STALEPOOL=1, too. Use import stalepool"
    if option:
        return "%s hides PYTHONPATH. Install it there by pip, and set STALEPOOL=1" % option
    return "%s does not find it. Install it there; -s hides an install by --user" % " ".join(python)


def _become(words: List[str], environ: Dict[str, str]) -> NoReturn:
    """Replace this process, as execvp(3) does.

    :raises Complaint: that fails.
    """
    try:
        program = shutil.which(words[0])
        if program is None:
            if not _is_there(words[0]):
                raise Complaint("%s: command not found" % words[0], NOT_FOUND)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        try:
            os.execve(program, words, environ)
        except OSError as error:
            if error.errno != errno.ENOEXEC or not _is_text(program):
                raise
            os.execve("/bin/sh", ["/bin/sh", program, *words[1:]], environ)  # it has no "#!"
    except OSError as error:
        why = "%s: cannot execute: %s" % (words[0], error.strerror)
        raise Complaint(why, CANNOT_EXECUTE)


def path(args: argparse.Namespace) -> int:
    """Print the directory to put first on PYTHONPATH."""
    require_injectable()
    print(INJECT_DIR)
    return 0


def require_injectable() -> None:
    """Make sure that our directory works on PYTHONPATH.

    :raises Complaint: it would do nothing.
    """
    if not (INJECT_DIR / "sitecustomize.py").is_file():
        raise Complaint(
            "%s has no sitecustomize.py: install stalepool anew, and unpacked" % INJECT_DIR
        )
    if os.pathsep in str(INJECT_DIR):
        says = "%s has a %r in its path, which PYTHONPATH would be split at: install elsewhere"
        raise Complaint(says % (INJECT_DIR, os.pathsep))


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
