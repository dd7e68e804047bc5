"""The test suite of another project, run by pytest in a process of its own."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from conftest import child


class Outcome(NamedTuple):
    status: int
    said: str


def write_metadata(directory: Path, entry_points: str) -> None:
    """Leave behind what pip does of an installed stalepool that has these entry points."""
    installed = directory / "stalepool-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: stalepool\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(entry_points)
    (installed / "RECORD").write_text("stalepool/__init__.py,,\npytest_stalepool.py,,\n")


def run_pytest(
    directory: Path, test: str, *options: str, plugin: bool = True, **more: Any
) -> Outcome:
    """Run one module of tests, with the plugin as an installed stalepool brings it in."""
    (directory / "test_it.py").write_text(textwrap.dedent(test), encoding="utf-8")
    return pytest_in(directory, *(("-p", "pytest_stalepool") if plugin else ()), *options, **more)


def pytest_in(directory: Path, *words: str, others: bool = False, **environ: str) -> Outcome:
    """Run pytest in a directory, with these words and variables.

    :param others: with all plugins that are installed; loading them takes half a second.
    """
    alone = {} if others else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    words = ("-m", "pytest", "-p", "no:cacheprovider", *words)
    done = child(*words, cwd=directory, env={**alone, **environ}, stderr=subprocess.STDOUT)
    return Outcome(done.returncode, done.stdout)


def assert_passes(outcome: Outcome, passed: int) -> None:
    assert outcome.status == 0, outcome.said
    assert f"{passed} passed" in outcome.said, outcome.said


def assert_fails(outcome: Outcome, *said: str) -> None:
    assert outcome.status == 1, outcome.said
    for words in said:
        assert words in outcome.said, outcome.said
