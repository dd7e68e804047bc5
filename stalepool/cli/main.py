"""The command line, ``stalepool COMMAND``: its parser, and the exit status."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

import stalepool
from stalepool import summary
from stalepool.cli import inject
from stalepool.cli.complaint import FAILED, Complaint, say
from stalepool.cli.status import command as status
from stalepool.settings import PREFIX, SETTINGS


class _Parser(argparse.ArgumentParser):
    """A parser whose help and version do not get lost: argparse swallows an error of stdout."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def _load_doctor(parser: argparse.ArgumentParser) -> None:
    from stalepool.cli.doctor import command

    command.add_arguments(parser)


def _load_demo(parser: argparse.ArgumentParser) -> None:
    try:
        from stalepool.cli.demo import command
    except ModuleNotFoundError as error:
        if error.name != "stalepool_testing":  # of which the table of cases is made
            raise
        parser.error("not installed here: stalepool_testing; pip installs it with stalepool")

    command.add_arguments(parser)


#: command -> its help, and what adds its arguments, and ``act``, to its parser
COMMANDS: Dict[str, Tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": ("start a program with the shim in it", inject.add_run_arguments),
    "path": ("print the directory to put on PYTHONPATH", inject.add_path_arguments),
    "status": (
        "show the processes that run with the shim, and what it has done",
        status.add_arguments,
    ),
    "doctor": (
        "examine stalepool in this environment or in a program, and say what is wrong",
        _load_doctor,
    ),
    "demo": ("replay the migration incident without and with the shim", _load_demo),
}


def _parsed(words: List[str]) -> argparse.Namespace:
    """Parse a command line, and load only the command that is given; exit with 2 if it is wrong."""
    parser = _Parser(
        prog="stalepool",
        description="Keeps services from talking into dead pooled connections.",
        epilog="Settings come from the environment; these are the defaults:\n" + _settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=stalepool.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    given = next((word for word in words if not word.startswith("-")), "")
    for name, (purpose, add_arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        if name == given:
            add_arguments(command)
    if words[:1] == [given] and given not in COMMANDS:
        near = difflib.get_close_matches(given, COMMANDS, n=1, cutoff=0)[0]
        parser.error("%r is not a command: the nearest is %r" % (given, near))
    return parser.parse_args(words)


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command.

    :returns: its exit status; 2 for a usage error, 1 if stdout takes nothing.
    """
    _prepare_streams()
    try:
        try:
            return _act(_parsed(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except OSError as error:
        return _failed(error)


def _act(args: argparse.Namespace) -> int:
    try:
        return int(args.act(args))
    except Complaint as complaint:
        say("stalepool " + args.command, complaint)
        return complaint.status


def _failed(error: OSError) -> int:
    if error.filename is not None:  # it is of that file, and not of stdout
        say("stalepool", "%s: %s" % (error.filename, error.strerror))
        return FAILED
    # what is still buffered would fail once more when the interpreter ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not isinstance(error, BrokenPipeError):  # the reader went away, as under "| head"
        say("stalepool", "cannot write to stdout: %s" % error.strerror)
    return FAILED


def _prepare_streams() -> None:
    """Replace streams that are None, as after ``>&-``; have others take any letter of a name."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())  # what is written there is lost
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _settings_help() -> str:
    lines = []
    for name, (kind, default, meaning) in SETTINGS.items():
        lines.append("  %s%s=%s" % (PREFIX, name.upper(), summary.shown(default)))
        lines.append("      %s" % meaning)
        lines.append("      takes %s" % kind.accepts)
    return "\n".join(lines)
