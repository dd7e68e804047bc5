"""The package as a whole: importing it, and the tests that its documentation shows."""

import re
import textwrap

import pytest

import stalepool_testing
from conftest import REPOSITORY
from stalepool_testing import AnswerStep, Fault, IdleStep, Unavailable, stale_states
from suite import run_with_plugin

pytest_plugins = ["pytester"]


def test_importing_them_does_not_import_stalepool(run_python):
    """The plugin imports nothing but pytest. What imports stalepool later has it on."""
    script = """
        import sys
        import contextlib, typing, pytest
        before = set(sys.modules)
        import pytest_stalepool
        assert set(sys.modules) - before == {"pytest_stalepool"}, set(sys.modules) - before
        from stalepool_testing import *
        import urllib3
        assert "stalepool" not in sys.modules
        assert not any("stalepool" in type(finder).__module__ for finder in sys.meta_path)
        import stalepool
        assert stalepool.is_installed()
    """
    run_python(script)


def whole_tests_of(name):
    """The literal blocks of a page that are test modules."""
    blocks = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", (REPOSITORY / name).read_text("utf-8"))
    return [textwrap.dedent(block) for block in blocks if "def test_" in block]


def test_each_as_it_stands_on_the_page(pytester):
    tests = whole_tests_of("docs/testing.rst")
    pytester.makepyfile(**{f"test_{number}": test for number, test in enumerate(tests)})
    outcome = run_with_plugin(pytester, "-rs")
    if outcome.parseoutcomes() == {"passed": 7, "skipped": 1}:
        raise Unavailable(outcome.stdout.str())
    outcome.assert_outcomes(passed=8)


@pytest.mark.full
def test_the_one_of_the_readme_fails_without_the_shim(pytester):
    (test,) = whole_tests_of("README.rst")
    pytester.makepyfile(test)
    run_with_plugin(pytester).assert_outcomes(passed=1)
    pytester.makepyfile(test.replace("stalepool_on, ", ""))
    outcome = run_with_plugin(pytester)
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines("*ConnectionResetError*")


def test_the_reference_has_every_step_and_state():
    page = (REPOSITORY / "docs/testing-reference.rst").read_text(encoding="utf-8")
    public, bases = vars(stalepool_testing).values(), (AnswerStep, Fault, IdleStep)
    steps = {x for x in public if isinstance(x, type) and issubclass(x, bases)}.difference(bases)
    assert len(steps) > 15
    assert {step for step in steps if f"    {step.__name__}(" not in page} == set()
    assert {name for name in stale_states() if f"    {name} " not in page} == set()
