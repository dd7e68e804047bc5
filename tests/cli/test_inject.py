"""Getting into a process by ``stalepool run``."""

import json
import os
import pwd
import re
import shutil
import signal
import sys

import pytest

from conftest import REPOSITORY, child
from files import lay_out, path_of
from service_process import COVERED
from stalepool.cli import inject

STALEPOOL = [sys.executable, "-m", "stalepool"]
WORDS = ["--help", "--", "-x", "", "a b", "--version", "'\"", "\u00fc", "--"]
IGNORED = signal.SIGPIPE, signal.SIGXFSZ  # by Python, and not by what is run


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """A directory with a copy of the package, in the hands of whoever runs the tests.

    The repository may be in other hands, and ``stalepool run`` minds: a container often runs as
    root what is mounted into it from somebody's home.
    """
    lib = tmp_path_factory.mktemp("installation") / "lib"
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(str(REPOSITORY / "stalepool"), str(lib / "stalepool"), ignore=compiled)
    for path in [lib, *lib.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o022)
    return lib


@pytest.fixture
def run_here(installation, monkeypatch, stalepool_here):
    """``stalepool run WORDS`` of an installation, in this process: exit status, and stderr."""

    def run_here(*words, lib=installation):
        package = lib.resolve() / "stalepool"
        monkeypatch.setattr(inject, "PACKAGE_DIR", package)
        monkeypatch.setattr(inject, "INJECT_DIR", package / "inject")
        done = stalepool_here("run", *words)
        assert done.stdout == ""
        return done.returncode, done.stderr

    monkeypatch.setenv("PYTHONPATH", str(installation))
    yield run_here
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def became(monkeypatch):
    """The command lines this process would have become, each with its environment."""
    found = []
    monkeypatch.setattr(os, "execve", lambda _, *what: found.append(what) or sys.exit(0))
    return found


def test_run_becomes_the_command_and_its_children_have_the_shim(port, installation, tmp_path):
    command = (
        "import json, os, subprocess, sys; assert 'stalepool' in sys.modules; "
        "subprocess.check_call([sys.executable, *sys.argv[1:3]]); "
        "print(json.dumps([os.getpid(), *sys.argv[3:]])); sys.exit(7)"
    )
    service = lay_out(tmp_path, {"service.py": COVERED}) / "service.py"
    start = ["/bin/sh", "-c", 'echo $$; exec "$@"', "sh", *STALEPOOL, "run"]
    words = [sys.executable, "-c", command, service, port, *WORDS]
    environ = {**path_of(installation), "PYTHONDONTWRITEBYTECODE": "1"}
    done = child(*start, *words, env=environ, cwd=installation)  # where "-m" looks first
    assert done.returncode == 7, done.stderr
    process_id, said, shown = done.stdout.splitlines()
    assert (said, json.loads(shown)) == ("covered", [int(process_id), *WORDS])


#: who has started ``run`` -> the signals that are ignored still
LEFT_IGNORED = {"a shell": (), "systemd": (signal.SIGPIPE,), "supervisord": IGNORED}


@pytest.mark.parametrize("parent", LEFT_IGNORED)
def test_run_changes_nothing_but_pythonpath_and_signals(
    parent, run_here, became, installation, monkeypatch
):
    directory = str(installation / "stalepool" / "inject")
    before, after = ["", str(installation)], ["", "relative", ""]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*before, directory, *after]))
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid() if parent == "systemd" else 1))
    monkeypatch.delenv("SUPERVISOR_ENABLED", raising=False)
    if parent == "supervisord":
        monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    assert run_here("--", "echo", *WORDS) == (0, "")
    path = os.pathsep.join([directory, *before, *after])
    assert became == [(["echo", *WORDS], {**os.environ, "PYTHONPATH": path})]
    found = [number for number in IGNORED if signal.getsignal(number) == signal.SIG_IGN]
    assert found == list(LEFT_IGNORED[parent])


@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C.UTF-8"}], ids=["none", "a locale"])
def test_run_adds_no_locale_as_python_does(locale, installation):
    environ = {**path_of(installation), **locale}
    done = child("/usr/bin/env", "-i", *map("=".join, environ.items()), *STALEPOOL, "run", "env")
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stdout.splitlines() if line.startswith("LC_")]
    assert shown == ["=".join(item) for item in locale.items()]


def test_the_path_is_what_run_puts_on_pythonpath(stalepool_here):
    directory = stalepool_here("path").stdout.rstrip("\n")
    for before in {}, {"PYTHONPATH": ""}:
        assert inject.injected(before) == {"PYTHONPATH": directory}
    assert set(os.listdir(directory)) - {"__pycache__"} == {"sitecustomize.py"}


DENIED, UNKNOWN = (126, "cannot execute: Permission denied"), (127, "command not found")
BINARY = (126, "cannot execute: Exec format error")
#: a command, which may be in the directory of the test -> exit status, and what is said
NOT_STARTED = {
    **{"{}/text": DENIED, "{}/binary": BINARY, "{}": DENIED, "text": DENIED},
    **{"{}/nothing": UNKNOWN, "no-such-command": UNKNOWN, "directory": UNKNOWN},
}


def test_run_cannot_execute(run_here, tmp_path, monkeypatch):
    lay_out(tmp_path, {"text": "echo no", "bin/text": "echo no", "bin/directory/file": ""})
    lay_out(tmp_path, {"binary": "\177ELF\0", "locked/command": ""}, 0o755)
    (tmp_path / "locked").chmod(0)  # only root may look into it
    places = [tmp_path / "bin", tmp_path / "locked", os.environ["PATH"], tmp_path / "text"]
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, places)))
    for command, (status, why) in NOT_STARTED.items():
        command = command.format(tmp_path)
        assert run_here(command) == (status, "stalepool run: %s: %s\n" % (command, why))
    (tmp_path / "locked").chmod(0o755)


def test_run_gives_a_script_without_an_interpreter_to_the_shell(installation, tmp_path):
    text = 'printf "%s\\n" "$0" "${PYTHONPATH%%:*}" "$@"'
    script = lay_out(tmp_path, {"script": text}, 0o755) / "script"
    environ = {**path_of(installation), "PATH": "%s:%s" % (tmp_path, os.environ["PATH"])}
    done = child(*STALEPOOL, "run", "script", *WORDS, env=environ, cwd=tmp_path)
    injected = str(installation.resolve() / "stalepool" / "inject")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == [str(script), injected, *WORDS, ""]


def test_run_starts_nothing_where_it_cannot_inject(
    run_here, became, stalepool_here, tmp_path, monkeypatch
):
    why = "%s/stalepool/inject has no sitecustomize.py: install stalepool anew, and unpacked"
    assert run_here("echo", lib=tmp_path) == (1, "stalepool run: %s\n" % why % tmp_path.resolve())
    split = lay_out(tmp_path / "a:b", {"stalepool/inject/sitecustomize.py": ""})
    assert run_here("echo", lib=split)[0] == 1
    done = stalepool_here("path")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("stalepool path: .* has a ':' in its path, .*\n", done.stderr)
    for words in [], ["--"], ["--", "", "x"]:
        assert run_here(*words) == (2, "stalepool run: CMD is missing, see stalepool run --help\n")
    monkeypatch.setenv("STALEPOOL_MODE", "activ")
    status, err = run_here("echo")
    assert status == 2
    assert err.startswith("stalepool run: STALEPOOL_MODE='activ' is not accepted")
    assert became == []


def test_run_refuses_what_others_may_change(installation, run_here, became):
    changed = installation.resolve() / "stalepool" / "inject"
    changed.chmod(0o777)
    status, err = run_here("echo")
    changed.chmod(0o755)
    assert (status, became) == (2, [])
    assert err.startswith("stalepool run: %s may be written to by everybody, who could" % changed)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_run_takes_what_a_trusted_user_owns(installation, run_here, became):
    theirs = str(installation / "stalepool" / "cli")
    os.chown(theirs, pwd.getpwnam("nobody").pw_uid, -1)
    refused, _ = run_here("--trust", "daemon", "echo")
    started = len(became)
    taken = run_here("--trust", "daemon", "--trust", "nobody", "echo")
    os.chown(theirs, 0, -1)
    assert (refused, started, taken) == (2, 0, (0, ""))


def test_run_warns_where_a_python_has_no_stalepool(tmp_path, run_here, became):
    lay_out(tmp_path, {"it": "#!%s -I" % sys.executable, "python3": "#!/bin/sh\nexit 63"}, 0o755)
    python, says = sys.executable, "stalepool run: %s starts without stalepool: %s"
    for start, why in {
        (tmp_path / "it",): ["-I hides PYTHONPATH. Install it there by pip, "],
        (python, "-E"): ["-E hides PYTHONPATH. Install it there by pip, "],
        (python, "-SE"): ["-S skips sitecustomize, and the file of STALEPOOL=1, too. "],
        (python, "-s", "-B"): [],
        (tmp_path / "python3",): [
            "%s does not find it. Install it there; " % (tmp_path / "python3")
        ],
    }.items():
        status, err = run_here(*start, "-c", "print('started')", "-I")
        assert status == 0 and became
        assert err.count("\n") == len(why)
        assert err.startswith("".join(says % (start[0], each) for each in why))
