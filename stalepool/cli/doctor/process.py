"""Start a program with the shim and a probe in it, and collect the probe's reports."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Dict, List

from stalepool.cli import inject
from stalepool.cli.signals import ended_by_signals, held_back

#: a service does not end by itself: it is watched until it has loaded urllib3 and has imported
#: nothing for STILL_S; at most LOOKS times that, which is a minute
STILL_S, LOOKS = 5.0, 12
_TO_END_S = 5

# runs first in the program; it hides stalepool's own sitecustomize, and runs that at its end
_SITECUSTOMIZE = """\
import os, sys
here = os.path.dirname(__file__)
sys.path.remove(here)
os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].partition(os.pathsep)[2]
try:
    from stalepool.cli.doctor import probe
    probe.start(%d)
except Exception:
    pass
del sys.modules["sitecustomize"]
import sitecustomize
"""


def facts_of(words: List[str]) -> Dict[str, Any]:
    """Start a program as ``stalepool run`` does, watch it and its forked children, and end it.

    The program's output goes to stderr. Blocks until the program ends, or imports nothing more; a
    minute at most.

    :returns: the facts; empty if no Python with stalepool has started in the program.
    :raises OSError: it cannot be started.
    """
    with ended_by_signals(), tempfile.TemporaryFile("a+b") as reports, _place() as place:
        descriptor = reports.fileno()
        Path(place, "sitecustomize.py").write_text(_SITECUSTOMIZE % descriptor, encoding="utf-8")
        environ = inject.injected(inject.inherited())
        environ["PYTHONPATH"] = os.pathsep.join([place, environ["PYTHONPATH"]])
        process = None
        try:
            with held_back():  # a program that is being started cannot be ended
                process = subprocess.Popen(
                    words,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=sys.__stderr__ or subprocess.DEVNULL,
                    pass_fds=[descriptor],
                    start_new_session=True,
                )
            _watch(process, reports)
        finally:
            if process is not None:
                _end(process)
        return _furthest(reports)


def _watch(process: subprocess.Popen[bytes], reports: IO[bytes]) -> None:
    before: Dict[str, Any] = {}
    for _ in range(LOOKS):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STILL_S)
        now = _furthest(reports)
        if process.returncode is not None or (now.get("pools") and now == before):
            return
        before = now


def _furthest(reports: IO[bytes]) -> Dict[str, Any]:
    """Return the last report of the process, among a server and its workers, with most pools."""
    reports.seek(0)
    last: Dict[int, Dict[str, Any]] = {}
    for line in reports:
        with contextlib.suppress(ValueError, SyntaxError):  # the program was ended while it wrote
            report = ast.literal_eval(line.decode())
            # two threads report, and may write in another order
            if report["modules"] >= last.get(report["pid"], report)["modules"]:
                last[report["pid"]] = report
    return max(last.values(), key=lambda report: len(report["pools"]), default={})


def _place() -> tempfile.TemporaryDirectory[str]:
    """Make a directory that the program can read, whatever user it becomes."""
    directory = tempfile.TemporaryDirectory(prefix="stalepool-doctor-")
    os.chmod(directory.name, 0o755)  # noqa: S103  # nobody else may write to it
    return directory


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(_TO_END_S)
