"""``stalepool demo``: one real run of all its cases, and everything around them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict

import pytest

import lanes
from conftest import REPOSITORY, child, child_that_stays
from service_process import is_running
from stalepool.cli.demo import command, report
from stalepool.cli.demo.cases import CASES, Case, selected
from stalepool.cli.demo.outcome import Answer, Did, Impossible, Race
from stalepool.cli.demo.report import Row
from stalepool.cli.demo.scene import Scene
from stalepool.cli.demo.service import DemoError
from stalepool_testing import Unavailable
from stalepool_testing.kernel import wait_until

COMMAND = [sys.executable, "-m", "stalepool", "demo"]

pytestmark = pytest.mark.skipif(find_spec("eventlet") is None, reason="the demo needs eventlet")


@pytest.fixture
def environ(tmp_path: Path) -> Dict[str, str]:
    """The variables of a demo run: its own directory for temporary files, a useless proxy,
    and a setting of the operator's that must not reach nova-api."""
    (tmp_path / "tmp").mkdir()
    return {
        "TMPDIR": str(tmp_path / "tmp"),
        "http_proxy": "http://127.0.0.1:9",
        "STALEPOOL_MODE": "audit",
    }


@pytest.mark.full
def test_the_whole_demo(environ: Dict[str, str], tmp_path: Path, request: Any) -> None:
    """Of a copy found through the working directory, with another one on PYTHONPATH."""
    for package in "stalepool", "stalepool_testing":
        shutil.copytree(str(REPOSITORY / package), str(tmp_path / "clone" / package))
    other = tmp_path / "other" / "stalepool"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('this is the other one')\n")
    environ.update(PYTHONIOENCODING="ascii", PYTHONPATH="../other")
    done = child(*COMMAND, env=environ, cwd=tmp_path / "clone", timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    marks = {"ok"} if request.config.getoption("--require-black-hole") else {"ok", "-"}
    for case in CASES:
        (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == [case.name]]
        without, with_, mark = re.split(" {2,}", line)[1:]
        assert mark in marks, done.stdout
        if mark == "ok" and case.do:
            assert without.startswith(case.without), done.stdout
            assert with_.startswith("200 in "), done.stdout
    assert "\n500: Unable to establish connection to http://127.0.0.1:" in done.stdout
    assert "unexpected" not in done.stdout
    assert re.search(r"\nOK: cases that end well: (\d) of \1 with stalepool, ", done.stdout)


def test_json_and_logs(environ: Dict[str, str], tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    only = ["--only", "rst-on-arrival", "--only", "fin-idle", "--only", "surplus-408"]
    done = child(*COMMAND, "--json", *only, "--keep-logs", logs, env=environ)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["ok"] is True
    assert data["logs"] == str(logs)
    assert set(data["versions"]) == {"python", "urllib3", "eventlet", "wrapt", "keystoneauth1"}
    idle, surplus, struck = data["cases"]
    assert [case["case"] for case in data["cases"]] == ["fin-idle", "surplus-408", "rst-on-arrival"]
    assert (idle["with"]["judged"], surplus["with"]["judged"]) == ({"closed": 1}, {"unread": 1})
    assert (idle["without"]["status"], idle["without"]["judged"]) == (200, {})
    assert struck["without"]["status"] == 500
    assert struck["without"]["detail"].startswith("Unable to establish connection to http://")
    assert struck["with"] == {**struck["with"], "status": 200, "asked": 2, "replays": {"ok": 1}}
    kept = {path.name: path.read_text() for path in logs.iterdir()}
    assert set(kept) == {"nova-without.log", "nova-with.log"}
    assert '"GET /servers/detail HTTP/1.1" 500' in kept["nova-without.log"]
    assert not any("Traceback" in text for text in kept.values())
    assert list((tmp_path / "tmp").iterdir()) == []


# -- when something is not as it should be ---------------------------------------------------------


def test_a_service_without_the_shim_and_one_that_has_died_are_named(tmp_path: Path) -> None:
    with Scene(tmp_path, "with", {"STALEPOOL_ENABLED": "0"}) as scene:
        with pytest.raises(DemoError, match="stalepool is not active in nova-api; its last words:"):
            scene.check()
        scene.nova._process.kill()
        (tmp_path / "nova-with.log").write_text("no room\n")
        with pytest.raises(DemoError, match=r"nova-api has ended with status -9; .*:\nno room"):
            scene.nova.tell("/servers/detail")


@pytest.mark.full
def test_a_service_that_fails_says_how(tmp_path: Path) -> None:
    with Scene(tmp_path, "with", {}) as scene:
        scene.neutron.close()
        with pytest.raises(
            DemoError, match=r"nova-api does not answer as it should: (?i:.*refused)"
        ):
            scene.nova.tell("/servers/detail")
        # a worker whose clients never come as far as their pools says why, too
        found = scene.nova.tell(f"/demo/busy?{scene.neutron.url}")
    assert (found["requests"], found["failures"]) == (0, 0)
    assert "refused" in found["detail"] or "ECONNREFUSED" in found["detail"]
    assert " at 0x" not in found["detail"]


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, stalepool_here: Any) -> None:
    monkeypatch.setattr(command, "NEEDED", ("urllib3", "keystoneauth_of_old"))
    done = stalepool_here("demo")
    assert done.returncode == 2
    assert done.stderr == (
        "stalepool demo: not installed here: keystoneauth_of_old;"
        " try: pip install 'stalepool[demo]', or '.[demo]' in a clone\n"
    )


def test_a_wrong_case_name(stalepool_here: Any) -> None:
    done = stalepool_here("demo", "--only", "fin-idel")
    assert (done.returncode, done.stdout) == (2, "")
    assert all(case.name in done.stderr for case in CASES)


@pytest.mark.parametrize("name", ["file", ""])
def test_logs_that_cannot_be_kept(name: str, tmp_path: Path, stalepool_here: Any) -> None:
    (tmp_path / "file").touch()
    directory = str(tmp_path / "file") if name else ""
    done = stalepool_here("demo", "--keep-logs", directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"stalepool demo: --keep-logs {directory!r}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.full
def test_a_machine_that_permits_no_black_hole(tmp_path: Path) -> None:
    def refuse(scene: Scene) -> None:
        raise Unavailable(1, "the kernel refuses a socket filter")

    with Scene(tmp_path, "with", {}) as scene:
        outcome = scene.play(refuse, 0)
    row = Row(by_name("black-hole"), outcome, outcome)
    assert row.ok is None
    assert "not possible here" in report.row(row)
    closing = report.closing([row], 1.0, None)
    assert "not possible here: the kernel refuses a socket filter\n" in closing
    assert closing.endswith("\nOK: black-hole cannot be shown on this machine (1 s).")
    assert "unexpected" not in closing
    assert report.as_json(row)["with"]["result"] == "impossible"


def test_too_few_descriptors_are_said(environ: Dict[str, str]) -> None:
    limited = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh"]
    done = child(*limited, *COMMAND, "--json", env=environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "stalepool demo: busy-worker needs 2048 open files, and may have 64 (ulimit -Hn)\n"
    )


# -- started, stopped and read in odd ways ---------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
@pytest.mark.parametrize(
    ("number", "status"),
    lanes.first(
        1,
        [
            (signal.SIGINT, 130),
            (signal.SIGKILL, -signal.SIGKILL),
            (signal.SIGTERM, 143),
            (signal.SIGHUP, 129),
        ],
    ),
)
def test_no_child_is_left_behind(
    environ: Dict[str, str], tmp_path: Path, number: int, status: int
) -> None:
    """With both services running, in the middle of its longest wait."""
    only = ["--only", "fin-idle", "--only", "select-hang"]
    with child_that_stays(*COMMAND, *only, env=environ) as demo:
        assert demo.stdout is not None
        while not demo.stdout.readline().startswith("fin-idle"):
            assert demo.poll() is None
        found = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
        children = [pid for pid in map(int, found) if is_running(pid)]
        assert len(children) == 2
        demo.send_signal(number)
        _, err = demo.communicate(timeout=30)
    assert (demo.returncode, err) == (status, "")
    wait_until(lambda: not any(map(is_running, children)), "end of both services", 30)
    if number != signal.SIGKILL:
        assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("closed", "status"),
    lanes.first(1, [("| true", "1"), (">&- 2>&-", "0"), ("0>&- >&- 2>&-", "0")]),
)
def test_closed_streams(environ: Dict[str, str], tmp_path: Path, closed: str, status: str) -> None:
    """Where nobody reads on it ends; where nobody ever read it goes its way."""
    line = f'{{ "$@"; echo $? >{tmp_path}/status; }} {closed}'
    done = child("sh", "-c", line, "sh", *COMMAND, "--only", "fin-idle", env=environ)
    assert done.stderr == ""
    assert (tmp_path / "status").read_text() == status + "\n"


@pytest.mark.full
def test_nothing_is_imported_from_the_working_directory(
    environ: Dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "bin" / "stalepool"  # as pip installs it
    script.parent.mkdir()
    script.write_text("import sys, stalepool.cli.main as m; sys.exit(m.main())\n")
    planted = tmp_path / "planted"
    planted.mkdir()
    for name in ("queue", "random", "json", "eventlet", "urllib3", "stalepool"):
        (planted / f"{name}.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')\n")
    words = [sys.executable, str(script), "demo", "--only", "fin-idle", "--keep-logs"]
    done = child(*words, ".", env=environ, cwd=planted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"logs:      kept in {planted}\n" in done.stdout
    assert not (tmp_path / "proof").exists()

    start = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh"]
    (tmp_path / "gone").mkdir()
    done = child(*start, *words, tmp_path / "logs", env=environ, cwd=tmp_path / "gone")
    assert done.returncode == 0, done.stderr


def test_the_command_line_does_not_load_it(run_python: Any) -> None:
    """Not for another command, and not for the list of all."""
    loaded = run_python("""
        import contextlib, io, json, sys
        from stalepool.cli.main import main
        with contextlib.redirect_stdout(io.StringIO()):
            main(["path"])
            try:
                main(["--help"])
            except SystemExit:
                pass
        print(json.dumps([name for name in sys.modules if "demo" in name]))
    """)
    assert loaded == []


# -- judgement and report --------------------------------------------------------------------------


def by_name(name: str) -> Case:
    (case,) = selected([name])
    return case


def answer(status: Any, asked: int = 1, **judged: int) -> Answer:
    detail = "lost" if status == 500 else ""
    return Answer(status, 0.0123, detail, asked, Did(judged, {}))


def a_race(failures: int, requests: int = 1000) -> Race:
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
def test_what_a_row_does_not_meet(name: str, outcome: Any, ok: Any) -> None:
    assert by_name(name).is_met(outcome) is ok


def test_the_report_says_all() -> None:
    """Of rows that are met."""
    saved = answer(200, asked=2)._replace(did=Did({"alive": 1}, {"ok": 1}))
    rows = [
        Row(by_name("fin-idle"), answer(500), answer(200, closed=1)),
        Row(by_name("rst-on-arrival"), answer(500), saved),
        Row(by_name("busy-worker"), a_race(31), a_race(0)),
        Row(by_name("black-hole"), answer(None), answer(200, probe_unanswered=1)),
        Row(by_name("path-away"), answer(200), answer(200, alive=1)),
    ]
    closing = report.closing(rows, 41.7, None)
    table = "\n".join(map(report.row, rows))
    assert max(map(len, (table + closing).splitlines())) <= 79
    for cell in (
        *("200 in 12 ms", "found: closed\n", "sent again: ok", "hung, over 6 s"),
        *("31 of 1000 fail", "0 of 1000 fail", "median 250 ms", "found: closed 1100\n"),
        *("found: probe_unanswered", "neutron asked: 1"),
    ):
        assert cell in table
    assert "unexpected: fin-idle without stalepool should give: 200." in closing
    assert "\n500: lost\n" in closing
    assert "the commonest error of the busy worker: reset by peer" in closing
    assert closing.endswith(
        "\nOK: cases that end well: 5 of 5 with stalepool, 1 of 5 without it (42 s)."
    )


def test_what_fails_with_stalepool_is_named_and_its_error_goes_first() -> None:
    odd = answer(500)._replace(detail="odd")
    rows = [
        Row(by_name("rst-on-arrival"), answer(500), answer(200)),
        Row(by_name("fin-on-arrival"), answer(500), odd),
    ]
    assert report.row(rows[1]).splitlines()[0].endswith(" FAIL")
    closing = report.closing(rows, 1.0, None)
    assert "500: odd\n" in closing and "lost" not in closing
    assert "FAILED: with stalepool, fin-on-arrival did not end as expected; --keep-" in closing
    assert report.closing(rows, 1.0, "/tmp/x").endswith("expected; the logs are in\n/tmp/x")
