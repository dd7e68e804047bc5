"""``stalepool demo``: real runs, and what it cannot begin with."""

import importlib.util
import json
import re
import shutil
import signal
import sys
import tempfile

import pytest

import lanes
from conftest import REPOSITORY, child
from files import lay_out, path_of
from stalepool.cli.demo import command
from stalepool.cli.demo.cases import CASES

COMMAND = [sys.executable, "-m", "stalepool", "demo"]


@pytest.fixture
def environ(tmp_path):
    """Among the variables are those of the operator's that must not reach nova-api."""
    (tmp_path / "tmp").mkdir()
    theirs = {"http_proxy": "http://127.0.0.1:9", "STALEPOOL_MODE": "audit"}
    return {"TMPDIR": str(tmp_path / "tmp"), **theirs}


@pytest.mark.full
def test_the_whole_demo(environ, tmp_path, request):
    """Of a copy found through the working directory, with another one on PYTHONPATH."""
    for package in "stalepool", "stalepool_testing":
        shutil.copytree(str(REPOSITORY / package), str(tmp_path / "clone" / package))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "stalepool.py").write_text("raise SystemExit('the other one')\n")
    environ.update(PYTHONIOENCODING="ascii", PYTHONPATH="../other")
    done = child(*COMMAND, env=environ, cwd=tmp_path / "clone", timeout=110)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for case in CASES:
        assert re.search("(?m)^%s  .* (ok|-)$" % case.name, done.stdout), done.stdout
    assert "\n500: Unable to establish connection to http://127.0.0.1:" in done.stdout
    assert "unexpected" not in done.stdout  # without stalepool it is as the table has it, too
    assert re.search(r"\nOK: cases that end well: (\d) of \1 with stalepool, ", done.stdout)
    if request.config.getoption("--require-black-hole"):
        assert " cannot be shown on this machine" not in done.stdout


def test_json_and_logs(environ, tmp_path):
    logs = tmp_path / "logs"
    only = ["--only", "rst-on-arrival", "--only", "fin-idle", "--only", "surplus-408"]
    done = child(*COMMAND, "--json", *only, "--keep-logs", "logs", env=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["ok"], data["logs"]) == (True, str(logs))
    assert set(data["versions"]) == {"python", "urllib3", "eventlet", "wrapt", "keystoneauth1"}
    idle, surplus, struck = data["cases"]
    assert [case["case"] for case in data["cases"]] == ["fin-idle", "surplus-408", "rst-on-arrival"]
    assert (idle["with"]["judged"], surplus["with"]["judged"]) == ({"closed": 1}, {"unread": 1})
    assert (idle["without"]["status"], idle["without"]["judged"]) == (200, {})
    assert struck["without"]["detail"].startswith("Unable to establish connection to http://")
    assert struck["with"] == {**struck["with"], "status": 200, "asked": 2, "replays": {"ok": 1}}
    with_, without = (path.read_text() for path in sorted(logs.iterdir()))
    assert '"GET /servers/detail HTTP/1.1" 500' in without
    assert "Traceback" not in with_ + without
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_it_cannot_begin_with(stalepool_here, monkeypatch):
    wrong = {"/dev/null/x": "Not a directory", "": "it takes the name of a directory"}
    for place, why in wrong.items():
        done = stalepool_here("demo", "--keep-logs", place)
        said = "stalepool demo: --keep-logs %r: %s\n" % (place, why)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = stalepool_here("demo")
    needed = "not installed here: eventlet, keystoneauth1, requests, urllib3; try: pip install '"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("stalepool demo: " + needed)


def test_without_stalepool_testing_it_cannot_begin(tmp_path):
    lay_out(tmp_path, "import sys; sys.modules['stalepool_testing'] = None")
    done = child(*COMMAND, "--json", env=path_of(tmp_path, REPOSITORY))
    said = "error: not installed here: stalepool_testing; pip installs it with stalepool\n"
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.endswith(said)


def test_too_few_descriptors_are_said(environ):
    done = child("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *COMMAND, "--json", env=environ)
    said = "stalepool demo: busy-worker needs 2048 open files, and may have 64 (ulimit -Hn)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_a_signal_ends_it_and_nothing_is_left(stalepool_here, tmp_path, monkeypatch):
    """Its services: test_nova."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(command, "_show", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert (stalepool_here("demo").returncode, list(tmp_path.iterdir())) == (143, [])


@pytest.mark.parametrize(
    ("line", "status"),
    lanes.first(1, [("{ %s; } | true", 1), ("{ %s; } 0>&- >&- 2>&-", 0), ('rmdir "$PWD"; %s', 0)]),
)
def test_streams_that_are_closed_and_a_directory_that_is_gone(line, status, environ, tmp_path):
    """Where nobody reads on it ends; where nobody ever read it goes its way."""
    script, here = tmp_path / "stalepool", tmp_path / "here"
    script.write_text("import sys, stalepool.__main__ as m; sys.exit(m.main())\n")  # as pip has it
    here.mkdir()
    line %= '"$@"; echo $? >%s/status' % tmp_path
    words = [sys.executable, script, "demo", "--only", "fin-idle"]
    assert child("sh", "-c", line, "sh", *words, env=environ, cwd=here).stderr == ""
    assert (tmp_path / "status").read_text() == "%d\n" % status
