"""The test suite of another project, run by pytest in a process of its own."""

import pytest

from conftest import REPOSITORY


def write_metadata(directory, entry_points):
    """Leave behind what pip does of an installed stalepool that has these entry points."""
    installed = directory / "stalepool-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: stalepool\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(entry_points)
    (installed / "RECORD").write_text("stalepool/__init__.py,,\npytest_stalepool.py,,\n")


def run(pytester, *words, others=False):
    """Run pytest in the directory of ``pytester``, which is importable, with these words.

    :param others: with all plugins that are installed; loading them takes half a second.
    """
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("PYTHONPATH", str(REPOSITORY))
        if not others:
            environ.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *words)


def run_with_plugin(pytester, *words, others=False):
    """The same with the plugin, as an installed stalepool brings it in."""
    return run(pytester, "-p", "pytest_stalepool", *words, others=others)
