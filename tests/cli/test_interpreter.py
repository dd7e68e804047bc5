"""The Python in which a command runs."""

import sys

import pytest

from files import lay_out, path_of
from stalepool.cli import interpreter

#: the first line of a script -> the Python that it starts, with its options
FIRST_LINES = {
    "#!{place}/python3 -I": ["{place}/python3", "-I"],
    "#!/usr/bin/env python3": ["{place}/python3"],
    "#!/usr/bin/env -S python3 -s": ["{place}/python3", "-s"],
    # pip's for long paths
    "#!/bin/sh\n'''exec' \"{place}/a b/python3\" \"$0\" \"$@\"\n' '''": ["{place}/a b/python3"],
    "#!": [],
    "#!{place}/none": [],
    "#!{place}/python3 '": [],
    "  {place}/python3": [],
}


@pytest.mark.parametrize("first_line", FIRST_LINES)
def test_the_python_of_a_script(first_line, tmp_path, monkeypatch):
    text = first_line.format(place=tmp_path)
    lay_out(tmp_path, {"python3": "", "a b/python3": "", "it": text}, 0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = [word.format(place=tmp_path) for word in FIRST_LINES[first_line]]
    assert interpreter.python_of([str(tmp_path / "it"), "-x"]) == expected


def test_what_cannot_be_started_has_no_python():
    assert interpreter.python_of(["no-such-command"]) == []
    assert interpreter.comes_up_without(["no-such-command"], {}) is False
    assert interpreter.comes_up_without([sys.executable, "-I"], {}) is True


def test_a_directory_that_only_has_the_name(tmp_path):
    """``import stalepool`` takes it for a package (PEP 420), so that start-up raises nothing."""
    # for that alone: Python 3.14 itself imports something more before it runs what it is given
    starts = "import sys; sys.path, was = [%r], sys.path; import stalepool; sys.path = was"
    starts %= str(tmp_path)
    lay_out(tmp_path, {"stalepool/left_behind": "", "sitecustomize.py": starts})
    assert interpreter.comes_up_without([sys.executable], path_of(tmp_path)) is True


@pytest.mark.parametrize("words, hidden", [("-BI", "-I"), ("-E -I -sS", "-S"), ("-s -B", "")])
def test_the_option_that_hides_sitecustomize(words, hidden):
    assert interpreter.hiding_option(["python3", *words.split()]) == hidden
