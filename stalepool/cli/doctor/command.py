"""The command itself: its arguments, its output, its exit status."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import List, Tuple

from stalepool.cli import inject, interpreter
from stalepool.cli.complaint import USAGE_ERROR, Complaint
from stalepool.cli.doctor import facts, process, unit
from stalepool.cli.doctor.questions import ERROR, OK, WARNING, Finding, ask_all

#: the exit status of a level is its index
LEVELS = (OK, WARNING, ERROR)

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
    parser.set_defaults(act=main)
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

    :returns: the exit status: 0, 1 with warnings, 2 with errors.
    :raises Complaint: the usage is wrong.
    """
    words = inject.command_of(args)
    if args.env is not None and words:
        raise Complaint("--env FILE and CMD do not go together", USAGE_ERROR)
    if args.env is not None:
        findings = _of_file(args.env)
    elif words:
        findings = _of_command(words)
    else:
        findings = ask_all({**facts.of_environment(), **facts.of_machine()})
    worst = max((finding.level for finding in findings), key=LEVELS.index)
    if args.json:
        print(json.dumps({"worst": worst, "findings": [f._asdict() for f in findings]}, indent=2))
    else:
        print(table(findings))
    return LEVELS.index(worst)


def _of_command(words: List[str]) -> List[Finding]:
    try:
        found = process.facts_of(words)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        if getattr(error, "filename", words[0]) == words[0]:
            return [Finding("command", ERROR, "%s: %s" % (words[0], why), "Name a program.")]
        remedy = "Provide what is missing; TMPDIR names the directory for the probe."
        return [Finding("command", ERROR, "%s cannot be watched: %s" % (words[0], why), remedy)]
    if not found:
        return [Finding("command", ERROR, *_why_unwatched(words))]
    return ask_all({**found, **facts.of_machine()})


def _why_unwatched(words: List[str]) -> Tuple[str, str]:
    """Return what is wrong, and a remedy."""
    python = interpreter.python_of(words)
    option = interpreter.hiding_option(python)
    if option:
        says = "%s hides the sitecustomize on PYTHONPATH, by which the doctor watches %s"
        remedy = "Examine it without %s. STALEPOOL=1 %s with it."
        works = "does not work" if option == "-S" else "works"
        return says % (option, words[0]), remedy % (option, works)
    remedy = "Install it for %s, if that is a Python; with uWSGI, --enable-threads."
    return "stalepool did not start in %s" % words[0], remedy % (" ".join(python) or "its Python")


def _of_file(file: str) -> List[Finding]:
    try:
        return unit.examine(Path(file))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        return [Finding("file", ERROR, "%s: %s" % (file, why), "Name a file that can be read.")]


def table(findings: List[Finding]) -> str:
    """Return the findings as lines of a hundred characters at most, and the count of each level."""
    lines = []
    width = max(len(finding.question) for finding in findings)
    for finding in findings:
        start = "%-8s %-*s  " % (finding.level, width, finding.question)
        for text in filter(None, [finding.says, finding.remedy]):
            lines += textwrap.wrap(
                text,
                99,
                initial_indent=start,
                subsequent_indent=" " * len(start),
                break_long_words=False,
                break_on_hyphens=False,
            )
            start = " " * len(start)
    counts = [sum(finding.level == level for finding in findings) for level in LEVELS]
    lines.append("ok: %d, warning: %d, error: %d" % tuple(counts))
    return "\n".join(lines)
