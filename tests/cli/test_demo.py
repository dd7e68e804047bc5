"""``stalepool demo``: one real run of all its cases, and everything around them."""

import json
import re
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import lanes
from conftest import REPOSITORY, child, child_that_stays
from service_process import is_running
from stalepool.cli.demo import command, report
from stalepool.cli.demo.cases import CASES
from stalepool.cli.demo.outcome import Answer, Did, Impossible, Race
from stalepool.cli.demo.report import Row
from stalepool.cli.demo.scene import Scene
from stalepool.cli.demo.service import DemoError
from stalepool_testing import Unavailable
from stalepool_testing.kernel import wait_until

COMMAND = [sys.executable, "-m", "stalepool", "demo"]
BY_NAME = {case.name: case for case in CASES}

pytestmark = pytest.mark.skipif(find_spec("eventlet") is None, reason="the demo needs eventlet")


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
    marks = {"ok"} if request.config.getoption("--require-black-hole") else {"ok", "-"}
    for case in CASES:
        (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == [case.name]]
        without, with_, mark = re.split(" {2,}", line)[1:]
        assert mark in marks, done.stdout
        if mark == "ok" and case.do:
            assert without.startswith(case.without) and with_.startswith("200 in "), done.stdout
    assert "\n500: Unable to establish connection to http://127.0.0.1:" in done.stdout
    assert "unexpected" not in done.stdout
    assert re.search(r"\nOK: cases that end well: (\d) of \1 with stalepool, ", done.stdout)


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


def test_a_machine_that_cannot_and_a_service_that_is_not_as_it_should_be(tmp_path):
    def refuse(scene):
        raise Unavailable(1, "no socket filter")

    with Scene(tmp_path, "with", {"STALEPOOL_ENABLED": "0"}) as scene:
        assert scene.play(refuse, 0) == Impossible("no socket filter")
        with pytest.raises(DemoError, match="stalepool is not active in nova-api; its last words:"):
            scene.check()
        scene.neutron.close()
        with pytest.raises(DemoError, match=r"does not answer as it should: (?i:.*refuse)"):
            scene.nova.tell("/servers/detail")
        scene.nova._process.kill()
        (tmp_path / "nova-with.log").write_text("no room\n")
        with pytest.raises(DemoError, match=r"nova-api has ended with status -9; .*:\nno room"):
            scene.nova.tell("/servers/detail")


@pytest.mark.full
def test_a_worker_whose_clients_never_come_as_far_as_their_pools_says_why(tmp_path):
    with Scene(tmp_path, "with", {}) as scene:
        scene.neutron.close()
        found = scene.nova.tell(f"/demo/busy?{scene.neutron.url}")
    assert (found["requests"], found["failures"]) == (0, 0)
    assert re.search("refused|ECONNREFUSED", found["detail"]) and " at 0x" not in found["detail"]


@pytest.mark.parametrize(
    ("words", "needed", "said"),
    [
        ([], "keystoneauth_of_old", "not installed here: keystoneauth_of_old; try: pip install '"),
        (["--keep-logs", "{}/file"], "sys", "--keep-logs '{}/file': "),
        (["--keep-logs", ""], "sys", "--keep-logs '': "),
    ],
    ids=["an extra is missing", "no place for the logs", "no name for it"],
)
def test_what_it_cannot_begin_with(words, needed, said, tmp_path, monkeypatch, stalepool_here):
    (tmp_path / "file").touch()
    monkeypatch.setattr(command, "NEEDED", ("urllib3", needed))
    done = stalepool_here("demo", *(word.format(tmp_path) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("stalepool demo: " + said.format(tmp_path))


def test_too_few_descriptors_are_said(environ):
    limited = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh"]
    done = child(*limited, *COMMAND, "--json", env=environ)
    said = "stalepool demo: busy-worker needs 2048 open files, and may have 64 (ulimit -Hn)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


SIGNALS = {"SIGINT": 130, "SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGHUP": 129}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
@pytest.mark.parametrize("name", lanes.first(1, SIGNALS))
def test_no_child_is_left_behind(name, environ, tmp_path):
    """With both services running, in the middle of its longest wait."""
    only = ["--only", "fin-idle", "--only", "select-hang"]
    with child_that_stays(*COMMAND, *only, env=environ) as demo:
        while not demo.stdout.readline().startswith("fin-idle"):
            assert demo.poll() is None
        found = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
        children = [pid for pid in map(int, found) if is_running(pid)]
        assert len(children) == 2
        demo.send_signal(getattr(signal, name))
        _, err = demo.communicate(timeout=30)
    assert (demo.returncode, err) == (SIGNALS[name], "")
    wait_until(lambda: not any(map(is_running, children)), "end of both services", 30)
    if name != "SIGKILL":
        assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("closed", "status"),
    lanes.first(1, [("| true", "1"), (">&- 2>&-", "0"), ("0>&- >&- 2>&-", "0")]),
)
def test_closed_streams(closed, status, environ, tmp_path):
    """Where nobody reads on it ends; where nobody ever read it goes its way."""
    line = f'{{ "$@"; echo $? >{tmp_path}/status; }} {closed}'
    assert child("sh", "-c", line, "sh", *COMMAND, "--only", "fin-idle", env=environ).stderr == ""
    assert (tmp_path / "status").read_text() == status + "\n"


@pytest.mark.full
@pytest.mark.parametrize("start", ['exec "$@"', 'rmdir "$PWD"; exec "$@"'], ids=["", "gone"])
def test_nothing_is_needed_from_the_working_directory(start, environ, tmp_path):
    """Neither a module nor the directory itself."""
    script, here = tmp_path / "stalepool", tmp_path / "here"
    script.write_text("import sys, stalepool.cli.main as m; sys.exit(m.main())\n")  # as pip has it
    here.mkdir()
    if not start.startswith("rmdir"):
        for name in ("queue", "random", "json", "eventlet", "urllib3", "stalepool"):
            (here / f"{name}.py").write_text("raise SystemExit('planted')\n")
    words = [sys.executable, script, "demo", "--only", "fin-idle"]
    done = child("sh", "-c", start, "sh", *words, env=environ, cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_other_command_loads_it():
    for word in "path", "--help":
        loaded = child("-X", "importtime", "-m", "stalepool", word).stderr
        assert "stalepool.cli.main" in loaded and "demo" not in loaded


def answer(status, asked=1, detail="lost", replays=(), **judged):
    return Answer(status, 0.0123, detail if status == 500 else "", asked, Did(judged, {*replays}))


def a_race(failures, requests=1000):
    detail = "reset by peer" if failures else ""
    return Race(requests, failures, 0.25, detail, Did({"closed": 1100, "alive": 1000}, {}))


@pytest.mark.parametrize(
    ("name", "outcome", "ok"),
    [
        ("fin-idle", answer(200, alive=1), False),
        ("fin-idle", answer(500, closed=1), False),
        ("path-away", answer(200, asked=2, alive=1), False),
        ("busy-worker", a_race(1), False),
        ("busy-worker", a_race(0, requests=0), False),
        ("black-hole", Impossible("not here"), None),
    ],
)
def test_what_a_row_does_not_meet(name, outcome, ok):
    assert BY_NAME[name].is_met(outcome) is ok


def test_the_report_says_all():
    saved = answer(200, asked=2)._replace(did=Did({"alive": 1}, {"ok": 1}))
    rows = [
        Row(BY_NAME["fin-idle"], answer(500), answer(200, closed=1)),
        Row(BY_NAME["rst-on-arrival"], answer(500), saved),
        Row(BY_NAME["busy-worker"], a_race(31), a_race(0)),
        Row(BY_NAME["black-hole"], answer(None), answer(200, probe_unanswered=1)),
        Row(BY_NAME["path-away"], answer(200), answer(200, alive=1)),
        Row(BY_NAME["select-hang"], *[Impossible("no socket filter")] * 2),
    ]
    closing = report.closing(rows, 41.7, None)
    table = "\n".join(map(report.row, rows))
    assert max(map(len, (table + closing).splitlines())) <= 79
    for cell in (
        *("200 in 12 ms", "found: closed\n", "sent again: ok", "hung, over 6 s"),
        *("31 of 1000 fail", "0 of 1000 fail", "median 250 ms", "found: closed 1100\n"),
        *("found: probe_unanswered", "neutron asked: 1", "not possible here"),
    ):
        assert cell in table
    assert "unexpected: fin-idle without stalepool should give: 200." in closing
    assert closing.count("unexpected") == 1
    assert "not possible here: no socket filter\n" in closing
    assert report.as_json(rows[-1])["with"]["result"] == "impossible"
    assert "\n500: lost\n" in closing
    assert "the commonest error of the busy worker: reset by peer" in closing
    assert closing.endswith(
        "\nOK: cases that end well: 5 of 5 with stalepool, 1 of 5 without it; select-hang\n"
        "cannot be shown on this machine (42 s)."
    )
    failed = Row(BY_NAME["fin-on-arrival"], answer(500), answer(500, detail="odd"))
    assert report.row(failed).splitlines()[0].endswith(" FAIL")
    closing = report.closing([*rows, failed], 1.0, None)
    assert "500: odd\n" in closing and "lost" not in closing
    assert "FAILED: with stalepool, fin-on-arrival did not end as expected; --keep-" in closing
    assert report.closing([failed], 1.0, "/tmp/x").endswith("expected; the logs are in\n/tmp/x")
