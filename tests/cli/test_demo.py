"""``stalepool demo``: real runs of its fast cases, and everything around them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from conftest import REPOSITORY
from stalepool import Settings
from stalepool.cli.demo import chain, command, processes, race, report, runner
from stalepool.cli.demo.cases import CASES, Case, selected
from stalepool.cli.demo.network import Network
from stalepool.cli.demo.outcome import Answer, Impossible, Race, as_json, judge
from stalepool.cli.demo.processes import address_of, listener, to_text
from stalepool.cli.demo.relay import Link

COMMAND = [sys.executable, "-m", "stalepool", "demo"]
SO_LOCK_FILTER = 44

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


@pytest.fixture
def environ(tmp_path: Path) -> Dict[str, str]:
    """The environment of a demo run: its own directory for temporary files, a useless proxy,
    and a setting of the operator's that must not reach the demo's services."""
    (tmp_path / "tmp").mkdir()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("STALEPOOL_")}
    environ.update(
        PYTHONPATH=str(REPOSITORY),
        TMPDIR=str(tmp_path / "tmp"),
        http_proxy="http://127.0.0.1:9",
        STALEPOOL_MODE="audit",
    )
    return environ


def run_demo(environ: Dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], env=environ, capture_output=True, text=True, timeout=110
    )


def run_here(capsys: pytest.CaptureFixture[str], *only: str) -> Dict[str, Any]:
    """Run cases in this process, where they can be altered; returns the JSON and the status."""
    status = command.run_command(wants_json=True, only=list(only), keep_logs=None)
    data: Dict[str, Any] = json.loads(capsys.readouterr().out)
    data["status"] = status
    return data


# ---- what it shows


def test_json(environ: Dict[str, str], tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    done = run_demo(
        environ,
        *("--json", "--only", "rst-on-arrival", "--only", "fin-idle", "--only", "rst-idle"),
        *("--keep-logs", str(logs)),
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["ok"] is True
    assert set(data["versions"]) == {"python", "urllib3", "eventlet", "wrapt", "keystoneauth1"}
    default = str(Settings().keepalive_idle_s)
    assert data["shortened"]["STALEPOOL_KEEPALIVE_IDLE_S"] == {"demo": "1", "default": default}
    assert data["logs"] == str(logs)
    rows = {row["case"]: row for row in data["cases"]}
    assert list(rows) == ["fin-idle", "rst-idle", "rst-on-arrival"]
    for name, verdict in (("fin-idle", "closed"), ("rst-idle", "reset")):
        assert rows[name]["ok"] is True
        assert rows[name]["without"]["status"] == rows[name]["with"]["status"] == 200
        assert rows[name]["without"]["judged"] == {}
        assert rows[name]["with"]["judged"] == {verdict: 1}
    struck = rows["rst-on-arrival"]
    assert struck["without"]["status"] == 500
    assert struck["without"]["detail"].startswith("Unable to establish connection to http://")
    assert struck["ok"] is True
    assert struck["with"]["status"] == 200

    kept = {path.name: path.read_text() for path in logs.iterdir()}
    assert '"GET /servers/detail HTTP/1.1" 500' in kept["nova-without.log"]
    assert "rst-on-arrival: struck 1" in kept["network-with.log"]
    assert [name for name, text in kept.items() if "Traceback" in text] == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.haproxy
def test_haproxy_is_the_balancer(
    environ: Dict[str, str], tmp_path: Path, haproxy_binary: str
) -> None:
    logs = tmp_path / "logs"
    done = run_demo(environ, "--json", "--only", "surplus-408", "--keep-logs", str(logs))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["balancer"].startswith("haproxy ")
    assert "bind fd@" in (logs / "haproxy-with.cfg").read_text()
    assert '"GET /v2.0/ports?device_id=' in (logs / "balancer-with.log").read_text()


def test_the_embedded_relay_is_the_balancer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_haproxy", lambda: None)
    data = run_here(capsys, "fin-on-arrival", "surplus-408")
    assert data["status"] == 0
    assert data["balancer"] == "embedded relay (haproxy is not installed)"
    surplus, struck = data["cases"]
    assert surplus["with"]["judged"] == {"unread": 1}
    assert struck["without"]["result"] == "500"


def test_the_table(environ: Dict[str, str]) -> None:
    done = run_demo({**environ, "PYTHONIOENCODING": "ascii"}, "--only", "fin-on-arrival")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    default = Settings().keepalive_idle_s
    assert "shortened:  STALEPOOL_KEEPALIVE_IDLE_S=1 (default %s)" % default in done.stdout
    assert "logs:" not in done.stdout
    (row,) = [line for line in lines if line.startswith("fin-on-arrival")]
    _, without, with_, mark = (cell.strip() for cell in row.split("|"))
    assert without.startswith("500 in ")
    assert with_.startswith("200 in ")
    assert mark == "ok"
    assert "500: Unable to establish connection to http://127.0.0.1:" in done.stdout
    assert lines[-1].startswith("OK: cases that end well: 1 of 1 with stalepool, 0 of 1 without")
    assert lines[-1].endswith(" s).")
    assert "fin-on-arrival, with stalepool" in done.stderr


def test_the_busy_worker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(race.PLAN, "seconds", 4.0)
    data = run_here(capsys, "busy-worker")
    (row,) = data["cases"]
    assert row["without"]["failures"] >= 5
    assert row["with"]["failures"] < row["without"]["failures"] / 2  # the demo itself demands more
    assert row["with"]["judged"]["closed"] > 0
    assert "RemoteDisconnected" in row["without"]["detail"]
    assert 0 < row["without"]["p50_s"] <= row["without"]["p99_s"]


@linux_only
def test_the_black_hole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chain, "HUNG_AFTER_S", 3.0)
    data = run_here(capsys, "black-hole")
    (row,) = data["cases"]
    if row["with"]["result"] == "impossible":
        pytest.skip(row["with"]["reason"])
    assert row["without"]["result"] == "hung"
    assert row["without"]["status"] is None
    assert row["with"]["status"] == 200
    assert row["ok"] is True
    assert data["status"] == 0


@pytest.mark.slow
def test_all_cases(environ: Dict[str, str]) -> None:
    began = time.monotonic()
    done = run_demo(environ, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 90
    rows = json.loads(done.stdout)["cases"]
    assert [row["case"] for row in rows] == [case.name for case in CASES]
    assert all(row["without"]["result"] == row["without"]["expected"] for row in rows)


# ---- when something is not as it should be


def test_a_row_that_misses_its_expectation_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (case,) = selected(["fin-idle"])
    wrong = (case._replace(judged=frozenset({"reset"})),)
    monkeypatch.setattr(command, "selected", lambda names: wrong)
    assert command.run_command(wants_json=False, only=[], keep_logs=None) == 1
    printed = capsys.readouterr().out
    assert "FAILED: with stalepool, fin-idle did not end as expected" in printed
    assert "| FAIL" in printed


def test_a_half_that_should_have_the_shim_and_has_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "SHORTENED", {"STALEPOOL_ENABLED": "0"})
    monkeypatch.setattr(command, "SHORTENED", {})
    assert command.run_command(wants_json=True, only=["fin-idle"], keep_logs=None) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "stalepool is not active in nova-api, which has logged:" in captured.err


def test_a_service_that_dies_is_named_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_haproxy", lambda: "/nonexistent/haproxy")
    monkeypatch.setattr(command, "version_of", lambda haproxy: "haproxy")
    assert command.run_command(wants_json=True, only=["fin-idle"], keep_logs=None) == 1
    complaint = capsys.readouterr().err
    assert "the process balancer-without has ended with status 1" in complaint
    assert "FileNotFoundError" in complaint


def test_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_NEEDED", ("urllib3", "keystoneauth_of_old"))
    assert command.run_command(wants_json=False, only=[], keep_logs=None) == 2
    assert capsys.readouterr().err == (
        "stalepool demo: not installed here: keystoneauth_of_old;"
        " try: pip install 'stalepool[demo]', or '.[demo]' in a clone\n"
    )


def test_a_wrong_case_name(environ: Dict[str, str]) -> None:
    done = run_demo(environ, "--only", "fin-idel")
    assert done.returncode == 2
    assert done.stdout == ""
    for case in CASES:
        assert case.name in done.stderr


def test_logs_that_cannot_be_kept(environ: Dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_demo(environ, "--only", "fin-idle", "--keep-logs", str(tmp_path / "file"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"stalepool demo: --keep-logs {tmp_path / 'file'}: ")
    assert len(done.stderr.splitlines()) == 1


def test_logs_are_not_kept_in_a_directory_without_a_name(environ: Dict[str, str]) -> None:
    done = run_demo(environ, "--only", "fin-idle", "--keep-logs", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "stalepool demo: --keep-logs DIR: it must not be empty\n"


def test_where_the_logs_are_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (case,) = selected(["fin-idle"])
    monkeypatch.setattr(command, "selected", lambda names: (case._replace(with_="500"),))
    assert command.run_command(wants_json=False, only=[], keep_logs="kept") == 1
    printed = capsys.readouterr().out
    assert f"logs:       kept in {tmp_path / 'kept'}\n" in printed
    assert printed.endswith(f"; the logs of all processes are in\n{tmp_path / 'kept'}\n")
    assert "--keep-logs" not in printed
    assert "Error" not in (tmp_path / "kept" / "balancer-with.log").read_text()


@linux_only
def test_a_machine_that_permits_no_black_hole() -> None:
    network = Network()
    with listener() as server, socket.create_connection(address_of(server)) as client:
        accepted, _ = server.accept()
        with accepted:
            accepted.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
            network.links.add(Link(accepted, client))
            answer = network.strike("black-hole")
    assert answer.startswith("impossible ")
    outcome = Impossible(answer.partition(" ")[2])
    (case,) = selected(["black-hole"])
    row = judge(case, outcome, outcome)
    assert row.ok is None
    assert "not possible here" in report.table([row])
    closing = "OK: black-hole cannot be shown on this machine (1 s)."
    assert report.closing([row], 1.0, logs=None) == closing
    assert "unexpected" not in report.remarks([row])
    assert as_json(row)["with"]["result"] == "impossible"


# ---- started, stopped and read in odd ways


def children_of(pid: int) -> List[int]:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            children.append(int(stat.parent.name))
    return children


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def hanging_demo(environ: Dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A demo with all services running, in the middle of its longest wait."""
    with subprocess.Popen(
        [*COMMAND, "--json", "--only", "black-hole"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            while "without stalepool" not in process.stderr.readline():
                assert process.poll() is None
            yield process
        finally:
            process.kill()


@linux_only
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_no_child_is_left_behind(
    hanging_demo: subprocess.Popen[str], tmp_path: Path, number: int, status: int
) -> None:
    children = children_of(hanging_demo.pid)
    assert len(children) == 8  # compute is the demo itself; four more for each half
    hanging_demo.send_signal(number)
    out, err = hanging_demo.communicate(timeout=30)
    assert hanging_demo.returncode == status
    assert out == ""
    assert "Traceback" not in err
    give_up = time.monotonic() + 30
    while any(map(is_running, children)) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert [pid for pid in children if is_running(pid)] == []
    if number != signal.SIGKILL:
        assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "0>&- >&- 2>&-", "| true"])
def test_closed_streams(environ: Dict[str, str], tmp_path: Path, closed: str) -> None:
    line = f'{{ "$@"; echo $? >{tmp_path}/status; }} {closed}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, "--only", "fin-idle"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "status").read_text() == "0\n"


@pytest.fixture
def console_script(tmp_path: Path) -> List[str]:
    """The command as pip installs it: with nothing of the working directory on its path."""
    path = tmp_path / "bin" / "stalepool"
    path.parent.mkdir()
    path.write_text("import sys, stalepool.cli.main as m; sys.exit(m.main())\n")
    return [sys.executable, str(path), "demo"]


def test_nothing_is_imported_from_the_working_directory(
    environ: Dict[str, str], tmp_path: Path, console_script: List[str]
) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    for name in ("queue", "random", "runpy", "eventlet", "urllib3", "stalepool"):
        (planted / f"{name}.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')\n")
    done = subprocess.run(
        [*console_script, "--only", "fin-idle", "--keep-logs", "."],
        cwd=str(planted),
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "proof").exists()


def test_a_working_directory_that_is_gone(
    environ: Dict[str, str], tmp_path: Path, console_script: List[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *console_script, "--only", "fin-idle"],
        cwd=str(gone),
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr


def test_children_run_what_the_demo_is_a_part_of(environ: Dict[str, str], tmp_path: Path) -> None:
    """Here: a copy found through the working directory, with another one on PYTHONPATH."""
    for package in "stalepool", "stalepool_testing":
        shutil.copytree(str(REPOSITORY / package), str(tmp_path / "clone" / package))
    other = tmp_path / "other" / "stalepool"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('this is the other one')\n")
    done = subprocess.run(
        [*COMMAND, "--only", "fin-idle"],
        cwd=str(tmp_path / "clone"),
        env={**environ, "PYTHONPATH": "../other"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_relative_on_the_path_stays_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "lib", "/absolute", ""]))
    path = processes._environment(None)["PYTHONPATH"]
    assert path.split(os.pathsep) == [str(tmp_path / "lib"), "/absolute"]


def with_few_descriptors(limit: int, words: List[str], environ: Dict[str, str]) -> Any:
    return subprocess.run(
        ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.haproxy
@pytest.mark.usefixtures("haproxy_binary")
def test_few_descriptors_are_enough(environ: Dict[str, str]) -> None:
    done = with_few_descriptors(256, [*COMMAND, "--only", "fin-idle"], environ)
    assert done.returncode == 0, done.stderr


def test_too_few_descriptors_are_named(environ: Dict[str, str]) -> None:
    script = (
        "from stalepool.cli.demo import command, race; race.PLAN['seconds'] = 1.0;"
        " raise SystemExit(command.run_command(True, ['busy-worker'], None))"
    )
    done = with_few_descriptors(64, [sys.executable, "-c", script], environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Too many open files" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_busy_worker_tells_what_came_most_often(environ: Dict[str, str]) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        plan = json.dumps({**race.PLAN, "seconds": 0.1, "busy": 0})
        done = subprocess.run(
            [
                *(sys.executable, "-m", "stalepool.cli.demo.race_clients"),
                *(to_text(address_of(nobody_listens)), plan),
            ],
            env=environ,
            capture_output=True,
            text=True,
            timeout=110,
        )
    data = json.loads(done.stdout)
    assert (data["requests"], data["failures"]) == (0, 0)
    assert "Connection refused" in data["detail"] or "ECONNREFUSED" in data["detail"]
    assert " at 0x" not in data["detail"]


@linux_only
def test_a_full_disk_is_said(environ: Dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "--json", "--only", "fin-idle"],
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=110,
        )
    assert done.returncode == 1
    assert "cannot write the result" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_loads_nothing_heavy(environ: Dict[str, str]) -> None:
    script = (
        "import sys, stalepool.cli.demo\n"
        "print({'eventlet', 'urllib3', 'requests', 'keystoneauth1', 'ssl'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n", done.stderr


# ---- judgement and report


def answer(status: Any, **judged: int) -> Answer:
    return Answer(status, 0.0123, "", judged, {})


def a_race(failures: int) -> Race:
    detail = "reset by peer" if failures else ""
    return Race(10000, failures, 0.25, 1.5, detail, {"closed": 11000, "alive": 10000}, {})


def by_name(name: str) -> Case:
    (case,) = selected([name])
    return case


@pytest.mark.parametrize(
    ("name", "without", "with_", "ok"),
    [
        ("fin-idle", answer(200), answer(200, closed=1), True),
        ("fin-idle", answer(200), answer(200, alive=1), False),
        ("fin-idle", answer(200), answer(500, closed=1), False),
        ("rst-on-arrival", answer(500), answer(500, alive=1), False),
        ("rst-on-arrival", answer(500), answer(200, alive=1), True),
        ("black-hole", answer(None), answer(None, alive=1), False),
        ("black-hole", answer(None), answer(200, probe_unanswered=1), True),
        ("black-hole", answer(None), answer(200, timed_out=1), True),
        ("busy-worker", a_race(300), a_race(1), False),
        ("busy-worker", a_race(300), a_race(0), True),
        ("busy-worker", a_race(0), a_race(0), True),
        ("busy-worker", a_race(300), a_race(0)._replace(requests=0), False),
    ],
)
def test_what_a_row_must_meet(name: str, without: Any, with_: Any, ok: Any) -> None:
    assert judge(by_name(name), without, with_).ok is ok


def test_the_report_fits_and_says_all() -> None:
    rows = [
        judge(by_name("fin-idle"), answer(500), answer(200, closed=1)),
        judge(by_name("rst-on-arrival"), answer(500), answer(200, alive=1)),
        judge(by_name("busy-worker"), a_race(300), a_race(0)),
        judge(by_name("black-hole"), answer(None), answer(200, probe_unanswered=1)),
    ]
    table = report.table(rows)
    closing = report.closing(rows, 41.7, logs=None)
    remarks = report.remarks(rows)
    for text in (table, closing, remarks):
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= 100
    for cell in (
        "200 in 12 ms",
        "judged: closed",
        "30.0 per 1000 fail",
        "0.0 per 1000 fail",
        "p50 250 ms, p99 1.5 s",
        "hung, over 8 s",
    ):
        assert cell in table
    assert "unexpected: fin-idle without stalepool should give: 200." in remarks
    assert "busy-worker without stalepool, the commonest error: reset by peer" in remarks
    assert closing == "OK: cases that end well: 4 of 4 with stalepool, 0 of 4 without it (42 s)."


def test_the_closing_sentence_is_right_for_a_case_that_survives_by_itself() -> None:
    row = judge(by_name("fin-idle"), answer(200), answer(200, closed=1))
    closing = report.closing([row], 1.0, logs=None)
    assert closing == "OK: cases that end well: 1 of 1 with stalepool, 1 of 1 without it (1 s)."


def test_what_fails_with_stalepool_goes_before_in_the_remarks() -> None:
    expected, odd = (answer(500)._replace(detail=detail) for detail in ("expected", "odd"))
    remarks = report.remarks(
        [
            judge(by_name("rst-on-arrival"), expected, answer(200, alive=1)),
            judge(by_name("fin-on-arrival"), expected, odd),
            judge(by_name("busy-worker"), a_race(300), a_race(3)._replace(detail="too many")),
        ]
    )
    assert "500: odd\n" in remarks
    assert "busy-worker with stalepool, the commonest error: too many\n" in remarks
    assert "expected" not in remarks and "reset by peer" not in remarks


def test_a_replay_is_reported() -> None:
    saved = Answer(200, 0.01, "", {"alive": 1}, {"ok": 1})
    row = judge(by_name("fin-on-arrival"), answer(500), saved)
    assert "replayed: ok" in report.table([row])
