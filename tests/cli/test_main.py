"""The command line: what it prints, and what it exits with, whatever its streams are."""

import os
import re
import signal
import sys

import pytest

import stalepool
from conftest import child
from stalepool.cli import inject
from stalepool.settings import SETTINGS

#: command -> the exit statuses that its help explains
COMMANDS = {
    **{"run": [1, 2, 126, 127], "path": [1], "status": [0, 1, 2]},
    **dict.fromkeys(("doctor", "demo"), (0, 1, 2, 129, 130, 143)),
}


def test_version_and_help_of_every_command_and_setting(stalepool_here, monkeypatch):
    done = stalepool_here("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, stalepool.__version__ + "\n", "")
    text = stalepool_here("--help").stdout
    for name, (kind, default, meaning) in SETTINGS.items():
        shown = re.search("STALEPOOL_%s=(.+)" % name.upper(), text)
        assert shown is not None and kind.parse(shown[1]) == default
        assert meaning in text and kind.accepts in text
    assert max(len(line) for line in text.splitlines()) < 100
    monkeypatch.setenv("COLUMNS", "80")
    for command, statuses in COMMANDS.items():
        assert "\n    %s " % command in text
        done = stalepool_here(command, "--help")
        assert done.returncode == 0 and done.stdout.startswith("usage: ")
        assert max(len(line) for line in done.stdout.splitlines()) <= 80
        assert set(map(str, statuses)) <= set(re.findall(r"\d+", done.stdout))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "COMMAND"),
        (["--verbose"], "COMMAND"),
        (["run", "--x"], "--x"),
        (["stats"], "'stats' is not a command: the nearest is 'status'"),
        (["\x1b"], r"'\x1b' is not a command: the nearest is '"),
        (["run", "--trust", "no-such-user", "x"], "this machine has no user 'no-such-user'"),
    ],
)
def test_wrong_usage(words, says, stalepool_here):
    done = stalepool_here(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr.splitlines()[-1]


def test_ctrl_c(stalepool_here, monkeypatch):
    monkeypatch.setattr(inject, "path", lambda args: signal.raise_signal(signal.SIGINT))
    assert stalepool_here("path").returncode == 130


INTERRUPTED_IMPORT = """
import signal, sys
class Finder:
    def find_spec(self, name, *_):
        name == "stalepool.cli.main" and signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from stalepool.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_while_it_is_imported():
    done = child("-c", INTERRUPTED_IMPORT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_file_that_cannot_be_read_is_not_taken_for_stdout(stalepool_here, monkeypatch):
    monkeypatch.setattr(inject, "path", lambda args: os.stat("/" + "x" * 300))
    done = stalepool_here("path")
    says = "stalepool: /%s: File name too long\n" % ("x" * 300)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", says)


def test_the_demo_is_loaded_for_itself_alone():
    for word in "path", "--help":
        loaded = child("-X", "importtime", "-m", "stalepool", word).stderr
        assert "stalepool.cli.main" in loaded and "demo" not in loaded


@pytest.mark.parametrize(
    ("words", "status", "streams", "unbuffered"),
    [
        ("path", 0, "| :", ""),  # the reader has gone by then
        ("--help", 0, "| :", ""),
        ("path", 0, ">&-", ""),
        ("unknown", 2, "2>&-", ""),
        ("run", 2, "2>/dev/full", "1"),  # else Python itself ends with 120
        ("--help", 0, "<&- >&- 2>&-", ""),
        ("path", 1, ">/dev/full", ""),
        ("--help", 1, ">/dev/full", ""),
        ("path", 1, ">/dev/full", "1"),
        ("--help", 1, ">/dev/full", "1"),  # argparse itself swallows the error
        ("run --help", 1, ">/dev/full", "1"),
        ("--version", 1, ">/dev/full", "1"),
        ("--help", 0, "| :", "1"),
    ],
)
def test_streams_that_take_nothing(words, status, streams, unbuffered):
    if "full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    start = ["/bin/sh", "-c", '"$@" %s %s' % (words, streams), "sh"]
    done = child(*start, sys.executable, "-m", "stalepool", env={"PYTHONUNBUFFERED": unbuffered})
    is_told = streams == ">/dev/full"
    says = "stalepool: cannot write to stdout: No space left on device\n" * is_told
    assert (done.returncode, done.stdout, done.stderr) == (status, "", says)
