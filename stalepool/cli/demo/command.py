"""The command itself: its arguments, its output, its exit status."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.util
import json
import os
import platform
import resource
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Dict, Generator, Iterator, List, Optional, Sequence

from stalepool.cli.complaint import FAILED, USAGE_ERROR, Complaint
from stalepool.cli.demo import report
from stalepool.cli.demo.cases import CASES, Case, selected
from stalepool.cli.demo.plan import SHORTENED
from stalepool.cli.demo.report import Row
from stalepool.cli.demo.scene import Scene
from stalepool.cli.signals import ended_by_signals

NEEDED = ("eventlet", "keystoneauth1", "requests", "urllib3")
SETTINGS = {"without": {"STALEPOOL_ENABLED": "0"}, "with": SHORTENED}

#: a limit of open files that is high enough for the busy worker's clients and their server
_DESCRIPTORS = 2048
_STDERR = 2

_DESCRIPTION = """\
Replay the incident this was made for on real sockets, without and with the
shim. Takes a minute.
"""

_EPILOG = """\
exit status: 0 every row with stalepool is as it should be, 1 one is not, or the
demo cannot go on, 2 wrong usage or a missing package, 130 stopped by Ctrl-C,
143 by SIGTERM, 129 by SIGHUP.
The two halves differ in one thing: "without" has STALEPOOL_ENABLED=0.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=main)
    cases = "\n".join(f"  {case.name:<15} {case.title}" for case in CASES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _DESCRIPTION
    parser.epilog = f"cases:\n{cases}\n\n{_EPILOG}"
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the results as one JSON object, and nothing else, on stdout",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=[case.name for case in CASES],
        metavar="CASE",
        help="run this case only; may be given several times",
    )
    parser.add_argument("--keep-logs", metavar="DIR", help="keep nova-api's logs in DIR")


def main(args: argparse.Namespace) -> int:
    """Run the demo. Blocks for about 50 s with all cases.

    :returns: the exit status: 0 or 1.
    :raises Complaint: it cannot begin, or cannot go on.
    :raises SystemExit: with 143 on SIGTERM, 129 on SIGHUP.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Complaint(
            f"not installed here: {', '.join(missing)};"
            " try: pip install 'stalepool[demo]', or '.[demo]' in a clone",
            USAGE_ERROR,
        )
    with ended_by_signals(), _directory(args.keep_logs) as logs:
        kept = None if args.keep_logs is None else str(logs)
        return _show(selected(args.only or []), logs, kept, args.json)


def _show(cases: Sequence[Case], logs: Path, kept: Optional[str], wants_json: bool) -> int:
    began = time.monotonic()
    rows: List[Row] = []
    if not wants_json:
        _say(report.heading(_versions(), kept))
    with contextlib.closing(_played(cases, logs)) as played:  # nothing runs on if nobody reads
        for row in played:
            rows.append(row)
            if not wants_json:
                _say(report.row(row))
    seconds = time.monotonic() - began
    passed = all(row.ok is not False for row in rows)
    if wants_json:
        result = {
            "ok": passed,
            "seconds": round(seconds, 1),
            "versions": _versions(),
            "shortened": SHORTENED,
            "logs": kept,
            "cases": [report.as_json(row) for row in rows],
        }
        _say(json.dumps(result, indent=2))
    else:
        _say(report.closing(rows, seconds, kept))
    return 0 if passed else FAILED


def _played(cases: Sequence[Case], logs: Path) -> Generator[Row, None, None]:
    """Play the cases in order, each in both halves.

    :raises Complaint: it cannot go on: no descriptor left, no process, no room on the disk.
    """
    try:
        _keep_standard_descriptors()
        if any(case.do is None for case in cases):
            _have_descriptors_for_the_busy_worker()
        with contextlib.ExitStack() as stack:
            stack.callback(_show_progress, "")
            scenes = {
                half: stack.enter_context(Scene(logs, half, settings))
                for half, settings in SETTINGS.items()
            }
            _show_progress("starting nova-api")
            for scene in scenes.values():
                scene.check()
            for case in cases:
                outcomes = []
                for half, scene in scenes.items():
                    _show_progress(f"{case.name}, {half} stalepool")
                    outcomes.append(scene.play(case.do, case.idle_s) if case.do else scene.race())
                _show_progress("")
                yield Row(case, *outcomes)
    except OSError as error:
        raise Complaint(f"cannot go on: {error}") from error


def _keep_standard_descriptors() -> None:
    """Let /dev/null stand in for standard streams that are closed, else a socket would."""
    while os.open(os.devnull, os.O_RDWR) <= _STDERR:
        pass


def _have_descriptors_for_the_busy_worker() -> None:
    """Raise the soft limit of open files, here and for the children, as far as its clients need.

    :raises Complaint: it is not permitted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, hard))
        except ValueError:
            says = f"busy-worker needs {_DESCRIPTORS} open files, and may have {hard} (ulimit -Hn)"
            raise Complaint(says) from None


@contextlib.contextmanager
def _directory(keep: Optional[str]) -> Iterator[Path]:
    """Yield the directory for the logs: the given one, or one that is removed at the end.

    :raises Complaint: the given one cannot be made, or not be written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            if keep == "":
                raise OSError(errno.EINVAL, "it takes the name of a directory")
            ours = stack.enter_context(tempfile.TemporaryDirectory(prefix="stalepool-demo-"))
            path = Path(ours if keep is None else os.path.abspath(keep))
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=str(path)).close()
        except OSError as error:
            raise Complaint(f"--keep-logs {keep!r}: {error.strerror}", USAGE_ERROR)
        yield path


def _versions() -> Dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("urllib3", "eventlet", "wrapt", "keystoneauth1"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "(unknown)"
    return versions


def _show_progress(what: str) -> None:
    """Say on a terminal what goes on, in a line that the next one takes the place of."""
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            print(f"\r{what:<60}\r{what}", end="", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    """Write to stdout, in ASCII, whatever an error's text may hold."""
    print(text.encode("ascii", "backslashreplace").decode(), flush=True)
