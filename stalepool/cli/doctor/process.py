"""A program started with the shim and a probe in it, and what the probe saw."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List

from stalepool.cli import inject

#: a service does not end by itself: by then it has imported what it imports
WATCH_S = 15
_TO_END_S = 5

# run in the program before anything else; it hides stalepool's own, and runs that at its end
_SITECUSTOMIZE = """\
import os, sys
here = os.path.dirname(__file__)
sys.path.remove(here)
os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].partition(os.pathsep)[2]
try:
    from stalepool.cli.doctor import probe
    probe.start(os.path.join(here, "report"))
except Exception:
    pass
del sys.modules["sitecustomize"]
import sitecustomize
"""


def facts_of(words: List[str]) -> Dict[str, Any]:
    """Start a program as ``stalepool run`` does, watch it and its forked children, and end it.

    What it prints goes to stderr. Blocks until it ends, for :data:`WATCH_S` seconds at most.

    :returns: empty if the probe never came up in it, or not in a Python that has stalepool.
    :raises OSError: it cannot be started.
    """
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix="stalepool-doctor-") as place:
        Path(place, "sitecustomize.py").write_text(_SITECUSTOMIZE, encoding="utf-8")
        environ = inject.injected(dict(os.environ))
        environ["PYTHONPATH"] = os.pathsep.join([place, environ["PYTHONPATH"]])
        process = subprocess.Popen(
            words,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__ or subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(WATCH_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(process)
        reports = [_read(file) for file in sorted(Path(place).glob("report.*"))]
        # of a server and its forked workers the one that has come furthest
        return max(reports, key=lambda report: len(report.get("pools", ())), default={})


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have what ends this process end the program first, as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda n, frame: sys.exit(128 + n)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def _read(report: Path) -> Dict[str, Any]:
    try:
        return dict(ast.literal_eval(report.read_text(encoding="utf-8")))
    except (OSError, ValueError, SyntaxError):
        return {}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_TO_END_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            pass
