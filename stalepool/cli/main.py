"""The command line, ``stalepool COMMAND``: its parser, and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import sys
from typing import Any, Callable, Iterable, List, Optional

import stalepool
from stalepool import summary
from stalepool.cli import inject
from stalepool.cli.doctor import command as doctor
from stalepool.cli.status import command as status
from stalepool.settings import PREFIX, SETTINGS

INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


class Parser(argparse.ArgumentParser):
    """The parser of the whole command line, with the names of its commands."""

    commands: Iterable[str] = ()

    def refuse_unknown(self, words: List[str]) -> None:
        """Exit with 2, and name the nearest command, if the first word is no command."""
        if words and not words[0].startswith("-") and words[0] not in self.commands:
            near = difflib.get_close_matches(words[0], self.commands, n=1, cutoff=0)[0]
            self.error("%r is not a command: the nearest is %r" % (words[0], near))


class Command(argparse.ArgumentParser):
    """The parser of one command.

    :param load: adds its arguments, once it is the command that was given.
    """

    def __init__(
        self, load: Optional[Callable[[argparse.ArgumentParser], None]] = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._load = load

    def parse_known_args(self, *args: Any, **more: Any) -> Any:
        if self._load is not None:
            self._load(self)
        return super().parse_known_args(*args, **more)


def make_parser() -> Parser:
    parser = Parser(
        prog="stalepool",
        description="Keeps services from talking into dead pooled connections.",
        epilog="Settings come from the environment; these are the defaults:\n" + _settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=stalepool.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Command)

    run = commands.add_parser(
        "run",
        help="start a program with the shim in it",
        description="Start CMD with the shim injected into it and its Python children. The exit "
        "status is CMD's; 127 if CMD is not found, 126 if it cannot be executed, 1 if this "
        "installation cannot be injected. It is 2, and nothing is started, if a setting is wrong, "
        "or if users other than root, yourself and those of --trust may change stalepool's files "
        "or a directory above them: as the owner, as a member of the group, or because everybody "
        "may. The files on PYTHONPATH stay, and are not checked, since Python would load them "
        "without stalepool, too. If CMD is a script or a Python, and that Python has no "
        "stalepool, CMD starts all the same, and a line on stderr says so.",
    )
    inject.add_run_arguments(run)
    run.set_defaults(act=inject.run)

    path = commands.add_parser(
        "path",
        help="print the directory to put on PYTHONPATH",
        description="Print the directory that switches the shim on if it is first on PYTHONPATH; "
        "exit with 1 if there is none.",
    )
    path.set_defaults(act=inject.path)

    ask = commands.add_parser(
        "status",
        help="show the processes that run with the shim, and what it has done",
        description="Show what the shim does in the processes of this machine; as root in those of "
        "all users, in containers, too. Exits with 0 if each service shown is well: a process of "
        "it has written a status, the shim is off in none, and no patch was left out; with 1 "
        "otherwise, or if there is none; with 2 if they cannot be looked at.",
    )
    status.add_arguments(ask)
    ask.set_defaults(act=status.main)

    examine = commands.add_parser(
        "doctor",
        help="examine stalepool in this environment or in a program, and say what is wrong",
    )
    doctor.add_arguments(examine)
    examine.set_defaults(act=doctor.main)

    commands.add_parser(
        "demo",
        help="replay the migration incident without and with the shim",
        load=_load_demo,
    )
    parser.commands = tuple(commands.choices)
    return parser


def _load_demo(parser: argparse.ArgumentParser) -> None:
    from stalepool.cli.demo import command

    command.add_arguments(parser)
    parser.set_defaults(act=command.main)


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command.

    :returns: its exit status; 2 for a usage error, 130 after Ctrl-C, 1 if stdout takes nothing.
    """
    _open_closed_streams()
    try:
        try:
            parser = make_parser()
            parser.refuse_unknown(sys.argv[1:] if argv is None else argv)
            args = parser.parse_args(argv)
            return int(args.act(args))
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _cannot_write(error)


def _cannot_write(error: OSError) -> int:
    # what is still buffered would fail once more when the interpreter ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not isinstance(error, BrokenPipeError):  # the reader went away, as under "| head"
        with contextlib.suppress(OSError):
            print("stalepool: cannot write to stdout: %s" % error.strerror, file=sys.stderr)
    return 1


def _open_closed_streams() -> None:
    """Replace streams that are None, as after ``>&-``: what is written to them is lost."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())


def _settings_help() -> str:
    lines = []
    for name, (kind, default, meaning) in SETTINGS.items():
        lines.append("  %s%s=%s" % (PREFIX, name.upper(), summary.shown(default)))
        lines.append("      %s" % meaning)
        lines.append("      takes %s" % kind.accepts)
    return "\n".join(lines)
