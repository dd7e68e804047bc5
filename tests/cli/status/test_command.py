"""``stalepool status``: a service is shown from outside, in each form."""

import json
import re
import signal
import subprocess
import sys

import pytest
import urllib3

import stalepool
from conftest import child, child_that_stays
from service_process import SERVICE, Started
from stalepool.cli.status import proc, report

DUE = "from stalepool import status; status._make_due(); ask()\n"


def test_a_service_is_shown_from_outside(at, flaky, place, status):
    script = SERVICE + "ask(); ask(); ask('POST'); " + DUE
    with Started(script, flaky.port, **at, STALEPOOL_SILENCE_S="20") as service:
        done = status(service.pid)
        everything = status(service.pid, "--json", "--explain")
        explained = status(service.pid, "--explain").stdout.partition("\n\n")[2]
        assert report.NO_AUDIT in status(service.pid, "--report").stdout
    assert list(place.iterdir()) == [], "its file is gone with it"
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    said = r"\(pid %d, .*saved 1 request in \d+ s: 1 sent once more, 0 kept off .*; 0 fallbacks"
    assert re.search(said % service.pid, first)
    about = "  active, python %s, stalepool %s, urllib3 %s; settings: silence_s=20.0 "
    versions = [m.__version__ for m in (stalepool, urllib3)]
    assert about % (sys.version.split()[0], *versions) in done.stdout
    assert "silence_s=20.0 (STALEPOOL_SILENCE_S), status_dir=" in done.stdout
    assert "  http://127.0.0.1:%d" % flaky.port in rest
    assert "    connections that ended: failed_in_request 1" in rest
    assert "as of" not in done.stdout
    (shown,) = json.loads(everything.stdout)["services"]
    assert shown["totals"]["replays"] == {"ok": 1}
    assert shown["processes"][0]["status"]["pid"] == service.pid
    assert "failed_in_request" in explained and "-> " in explained
    assert "foreign_process" not in explained  # which was not counted
    assert not re.search("secret|a/path", done.stdout + everything.stdout)


def test_a_name_with_letters_that_stdout_does_not_have(tmp_path):
    script = tmp_path / "d\xe4mon.py"
    script.write_text("input()")
    with child_that_stays(sys.executable, script, stdin=subprocess.PIPE) as other:
        done = child("-m", "stalepool", "status", other.pid, env={"PYTHONIOENCODING": "ascii"})
        other.communicate("\n")
    assert done.stdout.startswith(r"d\xe4mon.py (pid %d, " % other.pid), done.stderr


def test_watching_ends_with_ctrl_c(answered):
    watch = child_that_stays("-m", "stalepool", "status", "--watch", answered[0])
    assert "saved 0 requests" in watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=30)
    assert (watch.returncode, err) == (130, "")


def test_metrics_of_processes_in_which_it_is_on_and_off(at, flaky, status):
    """Neither has prometheus_client in it."""
    pytest.importorskip("prometheus_client", reason="needs the extra prometheus")
    with Started(SERVICE + "ask(); ask(); " + DUE, flaky.port, **at) as one:
        with Started(SERVICE, 0, **at, STALEPOOL_MODE="activ") as other:
            done, nobody = status("--prometheus", one.pid, other.pid), status("--prometheus", 2**22)
    assert (done.returncode, done.stderr, nobody.returncode) == (0, "", 0)
    process, origin = 'pid="%d",service="python -c"', "http://127.0.0.1:%d" % flaky.port
    for sample in (
        'saved_total{how="replayed",origin="%s",%s} 1.0' % (origin, process % one.pid),
        "active{%s} 1.0" % process % one.pid,
        "active{%s} 0.0" % process % other.pid,
    ):
        assert "\nstalepool_%s\n" % sample in done.stdout
    assert "} 0.0\n" in nobody.stdout and "} 1.0\n" not in nobody.stdout


def test_what_it_needs(status, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    says = "stalepool status: --prometheus needs prometheus_client in the Python that runs this: "
    for words, said in (["--prometheus"], says), ([], "stalepool status: there is no /proc here: "):
        done = status(*words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(said)
        monkeypatch.setattr(proc, "has_proc", lambda: False)
