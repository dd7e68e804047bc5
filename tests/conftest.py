"""What all tests share: options, and clients that run in a process of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run also what takes long")
    parser.addoption(
        "--full", action="store_true", help="every combination of replay's factors, not each pair"
    )
    parser.addoption(
        "--soak", type=int, metavar="N", default=20_000, help="how many requests the soak makes"
    )
    parser.addoption(
        "--require-haproxy", action="store_true", help="fail, not skip, where there is no haproxy"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes long: runs with --slow"))


def clean_environ(**variables: str) -> Dict[str, str]:
    """This process's environment without STALEPOOL_*, with the repository importable."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("STALEPOOL_")}
    environ["PYTHONPATH"] = str(REPOSITORY)
    environ.update(variables)
    return environ


@pytest.fixture
def run_python() -> Callable[..., Any]:
    """Runs a script in a fresh interpreter, and returns what it printed last, as JSON.

    ``run_python(script, *args, env={}, flags=())``: warnings are errors there too, but for
    eventlet's own about its future. A traceback there fails the test here.
    """

    def run(script: str, *args: object, env: Optional[Dict[str, str]] = None, flags=()) -> Any:
        done = subprocess.run(
            [
                sys.executable,
                "-Werror",
                "-Wignore::DeprecationWarning",
                *flags,
                "-c",
                textwrap.dedent(script),
                *map(str, args),
            ],
            env=clean_environ(**(env or {})),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        last = done.stdout.strip().splitlines()[-1:]
        return json.loads(last[0]) if last else None

    return run


@pytest.fixture
def haproxy_binary(request: pytest.FixtureRequest) -> str:
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        if request.config.getoption("--require-haproxy"):
            pytest.fail("haproxy is required, and there is none")
        pytest.skip("no haproxy on this machine")
    return found
