"""The command itself: what is needed, what is run, what is printed, the exit status."""

from __future__ import annotations

import importlib.util
import json
import platform
import signal
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from stalepool.cli.demo import report
from stalepool.cli.demo.balancer import find_haproxy, version_of
from stalepool.cli.demo.cases import Case, selected
from stalepool.cli.demo.outcome import Row, as_json
from stalepool.cli.demo.processes import DemoError, Processes
from stalepool.cli.demo.progress import Progress
from stalepool.cli.demo.runner import SHORTENED, run_cases
from stalepool.cli.demo.surroundings import (
    Ended,
    UnusableDirectoryError,
    complain,
    ended_by_signals,
    logs_in,
    open_closed_streams,
    say,
)
from stalepool.settings import PREFIX, Settings

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SIGNAL = 128  # plus its number, as a shell has it

_NEEDED = ("eventlet", "keystoneauth1", "requests", "urllib3")


def run_command(wants_json: bool, only: List[str], keep_logs: Optional[str]) -> int:
    """Run the cases of these names, or all, and print the result.

    :returns: the exit status, see ``stalepool demo --help``.
    """
    open_closed_streams()
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return complain(
            f"stalepool demo: not installed here: {', '.join(missing)};"
            " try: pip install 'stalepool[demo]', or '.[demo]' in a clone",
            EXIT_USAGE,
        )
    try:
        with ended_by_signals(), logs_in(keep_logs) as logs:
            return _run(selected(only), logs, keep_logs is not None, wants_json)
    except KeyboardInterrupt:
        return EXIT_SIGNAL + signal.SIGINT
    except Ended as ended:
        return EXIT_SIGNAL + ended.signal
    except UnusableDirectoryError as error:
        return complain(f"stalepool demo: --keep-logs {error}", EXIT_USAGE)
    except DemoError as error:
        return complain(f"stalepool demo: {error}", EXIT_FAILED)
    except OSError as error:  # no descriptor left, no process, no room on the disk
        return complain(f"stalepool demo: cannot go on: {error}", EXIT_FAILED)


def _run(cases: Tuple[Case, ...], logs: Path, keeps_logs: bool, wants_json: bool) -> int:
    began = time.monotonic()
    haproxy = find_haproxy()
    kept = str(logs) if keeps_logs else None
    setup = report.Setup(_versions(), version_of(haproxy), _shortened(cases), kept)
    if not wants_json:
        say(report.header(setup))
    progress = Progress(steps=2 * len(cases) + any(case.fault is not None for case in cases))
    try:
        with Processes(logs) as processes:
            rows = list(run_cases(processes, cases, haproxy, progress))
    finally:
        progress.clear()
    seconds = time.monotonic() - began
    passed = all(row.ok is not False for row in rows)
    if wants_json:
        say(json.dumps(_as_json(setup, rows, passed, seconds), indent=2))
    else:
        say(report.table(rows))
        say(report.remarks(rows))
        say(report.closing(rows, seconds, kept))
    return EXIT_OK if passed else EXIT_FAILED


def _as_json(setup: report.Setup, rows: List[Row], passed: bool, seconds: float) -> Dict[str, Any]:
    return {
        "ok": passed,
        "seconds": round(seconds, 1),
        "versions": setup.versions,
        "balancer": setup.balancer,
        "logs": setup.logs,
        "shortened": {
            name: {"demo": value, "default": default}
            for name, (value, default) in setup.shortened.items()
        },
        "cases": [as_json(row) for row in rows],
    }


def _versions() -> Dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("urllib3", "eventlet", "wrapt", "keystoneauth1"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "(unknown)"
    return versions


def _shortened(cases: Tuple[Case, ...]) -> Dict[str, Tuple[str, str]]:
    """Setting -> (its value in the demo, its default), where the two differ."""
    if all(case.fault is None for case in cases):
        return {}
    defaults = {PREFIX + name.upper(): str(value) for name, value in Settings().as_dict().items()}
    return {
        name: (value, defaults[name])
        for name, value in SHORTENED.items()
        if value != defaults[name]
    }
