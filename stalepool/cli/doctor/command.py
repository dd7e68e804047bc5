"""The command itself: its arguments, its output, its exit status."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List

from stalepool.cli import inject, interpreter
from stalepool.cli.doctor import finding
from stalepool.cli.doctor.finding import ERROR, LEVELS, Finding

USAGE_ERROR = 2  # as with errors

_DESCRIPTION = """\
Examine stalepool in this Python, with the settings in the environment. With
CMD, examine it in that program: CMD is started as by "stalepool run", watched
until it imports nothing more (a minute at most), and ended. What CMD prints
goes to stderr. With --env, check the settings in a file, and start nothing.
"""

_EPILOG = """\
exit status: 0 all is well, 1 there are warnings, 2 there are errors, or the
usage is wrong, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``stalepool doctor`` to its parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s [-h] [--json] [--env FILE | -- CMD [ARGS]]"
    parser.add_argument(
        "--json", action="store_true", help="print the findings as one JSON object on stdout"
    )
    parser.add_argument(
        "--env",
        metavar="FILE",
        help="check an environment file (NAME=value), or a systemd unit",
    )
    inject.add_command(parser)


def main(args: argparse.Namespace) -> int:
    """Print the findings.

    :param args: what a parser with :func:`add_arguments` made.
    :returns: the exit status: 0, 1 with warnings, 2 with errors.
    """
    words = inject.command_of(args)
    if args.env is not None and words:
        print("stalepool doctor: --env FILE and CMD do not go together", file=sys.stderr)
        return USAGE_ERROR
    if args.env is not None:
        findings = _of_file(args.env)
    elif words:
        findings = _of_command(words)
    else:
        findings = _of_environment()
    worst = finding.worst(findings)
    if args.json:
        print(json.dumps({"worst": worst, "findings": [f._asdict() for f in findings]}, indent=2))
    else:
        print(finding.table(findings))
    return LEVELS.index(worst)


def _of_environment() -> List[Finding]:
    from stalepool.cli.doctor import facts

    return _judge({**facts.of_environment(), **facts.of_machine()})


def _of_command(words: List[str]) -> List[Finding]:
    from stalepool.cli.doctor import facts, process

    try:
        found = process.facts_of(words)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return [Finding("command", ERROR, "%s: %s" % (words[0], why), "Name a program.")]
    if not found:
        python = " ".join(interpreter.python_of(words)) or "its Python"
        says = "stalepool did not start in %s" % words[0]
        remedy = "Install it for %s, if that is a Python; with uWSGI, --enable-threads." % python
        return [Finding("command", ERROR, says, remedy)]
    return _judge({**found, **facts.of_machine()})


def _of_file(file: str) -> List[Finding]:
    from stalepool.cli.doctor import unit

    try:
        return unit.examine(Path(file))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        return [Finding("file", ERROR, "%s: %s" % (file, why), "Name a file that can be read.")]


def _judge(facts: Dict[str, Any]) -> List[Finding]:
    from stalepool.cli.doctor import questions

    return questions.ask_all(facts)
