"""``stalepool status``: real processes, asked from outside."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple

import pytest
import urllib3
import wrapt

import stalepool
from conftest import child_that_stays
from pools import get, serving, shim
from service_process import SERVICE, Started, this_process
from stalepool import fallback, stats
from stalepool.cli.status import explain, find, page, proc, report
from stalepool.cli.status.find import Process
from stalepool.cli.status.page import learnt
from stalepool.cli.status.services import Service
from stalepool.connection import request_rules
from stalepool.sockets.verdict import Verdict
from stalepool_testing import Close, FaultServer, ResetAfter, Respond

pytestmark = pytest.mark.skipif(not proc.has_proc(), reason="there is no /proc here")

AT = "STALEPOOL_STATUS_DIR"


@pytest.fixture
def at(tmp_path: Path) -> Dict[str, str]:
    return {AT: str(tmp_path)}


@pytest.fixture
def status(stalepool_here: Any) -> Callable[..., Any]:
    """``stalepool status WORDS``, in this process."""
    return functools.partial(stalepool_here, "status")


@pytest.fixture
def flaky() -> Iterator[Any]:
    with FaultServer([Respond(200), Close()], default=Respond(200)) as server:
        yield server


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[int, Path]]:
    """A service that has had an answer: its pid, and its status file."""
    directory = tmp_path_factory.mktemp("status")
    with FaultServer() as server:
        with Started(SERVICE + "ask()", server.port, **{AT: str(directory)}) as service:
            (path,) = directory.glob("*/*")
            yield service.pid, path
    assert service.err == ""


@pytest.fixture
def changed(answered: Tuple[int, Path]) -> Iterator[Tuple[int, Path]]:
    """The same for a test that changes the file."""
    pid, path = answered
    before = path.read_bytes()
    yield pid, path
    for each in path.parent.iterdir():
        each.unlink()
    path.write_bytes(before)


def test_a_service_is_shown_from_outside(
    at: Dict[str, str], flaky: Any, place: Path, status: Any
) -> None:
    script = SERVICE + "ask(); ask(); ask('POST'); from stalepool import status\n"
    script += "status._make_due(); ask()"
    with Started(script, flaky.port, **at, STALEPOOL_SILENCE_S="20") as service:
        done = status(service.pid)
        everything = status(service.pid, "--json", "--explain")
        explained = status(service.pid, "--explain").stdout.partition("\n\n")[2]
        assert report.NO_AUDIT in status(service.pid, "--report").stdout
    assert list(place.iterdir()) == [], "its file is gone with it"
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert "(pid %d, " % service.pid in first
    assert re.search(
        r"saved 1 request in \d+ s: 1 sent once more, 0 kept off .*; 0 fallbacks", first
    )
    about = "  active, python %s, stalepool %s, urllib3 %s, wrapt %s; settings: silence_s=20.0 "
    versions = [m.__version__ for m in (stalepool, urllib3, wrapt)]
    assert about % (sys.version.split()[0], *versions) in done.stdout
    assert "silence_s=20.0 (STALEPOOL_SILENCE_S), status_dir=" in done.stdout
    assert "  http://127.0.0.1:%d" % flaky.port in rest
    assert "    connections that ended: failed_in_request 1" in rest
    (shown,) = json.loads(everything.stdout)["services"]
    assert shown["totals"]["replays"] == {"ok": 1}
    assert shown["processes"][0]["status"]["pid"] == service.pid
    assert "failed_in_request" in explained and "-> " in explained
    assert "foreign_process" not in explained  # which was not counted
    assert "secret" not in done.stdout + everything.stdout
    assert "a/path" not in done.stdout + everything.stdout


def test_what_a_process_that_was_killed_has_left_is_swept(
    at: Dict[str, str], flaky: Any, place: Path, status: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        service.process.kill()
    assert len(list(place.iterdir())) == 1
    monkeypatch.setenv(AT, at[AT])
    status()
    assert list(place.iterdir()) == []


def test_workers_are_summed_and_shown_each_on_request(
    at: Dict[str, str], flaky: Any, status: Any
) -> None:
    """One worker has had no answer yet."""
    script = (
        SERVICE
        + """
said = []
for number in range(3):
    reader, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        if number < 2:
            ask(), ask()
            from stalepool import status
            status._make_due()
            ask()
        os.write(mouth, b"x")
        signal.pause()
    os.read(reader, 1)
    said.append(child)
import atexit
atexit.register(lambda: [os.kill(child, signal.SIGKILL) for child in said])
"""
    )
    with Started(script, flaky.port, **at) as service:
        workers = service.said[1:]
        together = json.loads(status("--json").stdout)["services"]
        page = status().stdout
        each = json.loads(status("--json", "--each").stdout)["services"]
    (mine,) = [s for s in together if service.pid in [each["pid"] for each in s["processes"]]]
    processes = {str(each["pid"]): each for each in mine["processes"]}
    assert set(processes) == {str(service.pid), *workers}
    assert mine["totals"]["checkouts"] == 4
    assert processes[workers[2]]["note"] == find.FORKED
    assert "%s (pid %s)" % (find.FORKED, workers[2]) in page
    assert {str(s["processes"][0]["pid"]) for s in each} >= {str(service.pid), *workers}
    by_pid = {s["processes"][0]["pid"]: s for s in each}
    assert [by_pid[int(worker)]["totals"]["checkouts"] for worker in workers[:2]] == [2, 2]


CONTAINER = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode != 0,
    reason="no namespaces may be made here",
)
def test_a_service_in_a_container(flaky: Any, status: Any) -> None:
    """With process ids of its own, and another /dev/shm, as under systemd's PrivateTmp."""
    mounting = 'mount -t tmpfs none /dev/shm && exec "$@"'
    command = [*CONTAINER, "sh", "-c", mounting, "sh", sys.executable]
    with Started(SERVICE + "ask(); said = [os.getpid()]", flaky.port, command=command) as service:
        assert service.said == ["ready", "1"]
        shown = json.loads(status("--json").stdout)["services"]
    origin = "http://127.0.0.1:%d" % flaky.port
    (mine,) = [each for each in shown if origin in each.get("origins", ())]
    (process,) = mine["processes"]
    assert process["status"]["pid"] == 1 and process["pid"] > 1


OFF: Dict[str, Tuple[Dict[str, Any], str, str]] = {
    "kill switch": ({"STALEPOOL_ENABLED": "0"}, "import stalepool", "STALEPOOL_ENABLED=0"),
    "wrong setting": ({"STALEPOOL_MODE": "activ"}, "import stalepool", "MODE='activ' is not"),
    "no wrapt": ({}, "sys.modules['wrapt'] = None\n" + SERVICE, "import of wrapt halted"),
    "by hand": ({}, SERVICE + "stalepool.uninstall()", "uninstall() was called"),
    "a patch that does not fit": (
        {},
        "import urllib3.connectionpool as pool\npool.is_connection_dropped = lambda c: False\n"
        + SERVICE,
        "NOT patched: urllib3.connectionpool.is_connection_dropped: takes (c)",
    ),
    "no file": ({AT: "off"}, "import stalepool", "keeps no status file: %s=" % AT),
    "no place for a file": (
        {AT: "/nonexistent/x"},
        SERVICE + "ask()",
        "its Python has no stalepool, or it cannot write below /nonexistent/x",
    ),
    "a switch": ({AT: None, "STALEPOOL": "1"}, "", "no status: it has not imported urllib3"),
    "a setting": ({AT: None, "STALEPOOL_KEEPALIVE_COUNT": "1"}, "", "it has not imported urllib3"),
}


@pytest.mark.parametrize("name", OFF)
def test_it_says_why_the_shim_is_off_or_is_not_seen(
    name: str, at: Dict[str, str], flaky: Any, status: Any
) -> None:
    variables, script, words = OFF[name]
    given = {each: value for each, value in {**at, **variables}.items() if value is not None}
    with Started("import sys\n" + script, flaky.port, **given) as service:
        done = status(service.pid)
    assert (done.returncode, done.stderr) == (1, "")
    assert words in done.stdout
    # the fallback is one line more
    assert len(done.stdout.splitlines()) <= 2 + (name == "a patch that does not fit")
    assert service.err.count("\n") <= 1


def test_the_options_of_a_script_are_not_its_pythons(tmp_path: Path) -> None:
    script = tmp_path / "serve"
    script.write_text("input(print('ready', flush=True))")
    words = [sys.executable, "-X", "dev", str(script), "-c", "conf.py", "-m", "it"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert proc.command(process.pid, "python") == "serve"
        process.stdin.write(b"\n")


# -- bad input -------------------------------------------------------------------------------------


def test_a_process_that_is_not_there_or_has_no_shim(status: Any) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        for pid, words in (999999999, "no such process"), (other.pid, find.WITHOUT):
            done = status(pid)
            assert (done.returncode, done.stderr) == (1, "")
            assert str(pid) in done.stdout and words in done.stdout
        other.kill()


def test_what_was_written_long_ago_says_so() -> None:
    with shim(), serving() as (_, pool):
        get(pool)
        pages = [page.page([this_process(written_at=time.time() - ago)]) for ago in (5, 600)]
    assert ["  as of 10 min ago: " in text for text in pages] == [False, True]


GARBAGE: Dict[str, Callable[[Path], Any]] = {
    "no JSON": lambda path: path.write_text("{"),
    "not even text": lambda path: path.write_bytes(b"\xff\x00" * 9),
    "another shape": lambda path: path.write_text("[1, 2]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "empty": lambda path: path.write_text(""),
    "of another version": lambda path: path.write_text('{"version": "9", "pid": 1}'),
    "too large": lambda path: os.truncate(path, find.LARGEST_FILE + 1),
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link": lambda path: (path.rename(path.with_name("other")), path.symlink_to("other")),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_named_in_one_sentence(
    name: str, changed: Tuple[int, Path], status: Any
) -> None:
    pid, path = changed
    GARBAGE[name](path)
    done = status(pid)
    as_json = status("--json", pid)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert "its status file %s cannot be used: it " % path in line
    assert json.loads(as_json.stdout)["services"][0]["processes"][0]["is_off"] is True


def test_a_directory_open_to_all_is_named(
    answered: Tuple[int, Path], status: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, path = answered
    place = path.parent
    monkeypatch.setenv(AT, str(place.parent))
    place.chmod(0o777)
    try:
        done = status(pid)
        with subprocess.Popen(["sleep", "60"]) as other:
            everybody = status().stdout
            other.kill()
    finally:
        place.chmod(0o700)
    words = "its directory %s cannot be used: belongs to, or may be written to by, another" % place
    assert done.returncode == 1 and words in done.stdout
    assert words in everybody and "(pid %d," % other.pid not in everybody


JUNK = [None, True, -1, 1e300, float("nan"), "junk", [], [[1]], {}, {"x": {"y": []}}]


def with_junk(value: Any) -> Iterator[Any]:
    """The same thing with one part at a time replaced by junk, or left out."""
    if isinstance(value, dict):
        for key in value:
            yield {each: value[each] for each in value if each != key}
            yield {**value, key + "?": value[key]}
            for changed in with_junk(value[key]):
                yield {**value, key: changed}
    yield from JUNK


def test_whatever_a_file_holds_it_is_refused_or_shown(tmp_path: Path) -> None:
    with shim(), serving([Respond(200), ResetAfter(0)]) as (server, pool):
        get(pool)
        server.wait_idle_step()
        get(pool)
        fallback.fall_back("check_failed", "junk")
        (whole,) = this_process().seen
    # one setting and one origin: others, such as those of other tests, would be junked alike
    whole["settings"] = {"replay": whole["settings"]["replay"]}
    own = ":%d" % server.port
    whole["origins"] = {name: o for name, o in whole["origins"].items() if name.endswith(own)}
    directory, taken = os.open(tmp_path, os.O_RDONLY), 0
    try:
        for changed in with_junk(whole):
            (tmp_path / "file").write_text(json.dumps(changed))
            try:
                read = find._read(directory, "file", os.geteuid())
            except ValueError:
                continue
            taken += 1
            services = [Service([Process(1, "u", "x", b"", read)])]
            assert page.page(services) and explain.explanation(services)
            json.dumps(services[0].as_dict())
            read["mode"] = "audit"
            assert report.report(services)
    finally:
        os.close(directory)
    assert find._is_a_status(whole) and taken > 50
    for edge in ("e", "1..2", "", "nan"):  # an age that is no number
        whole["totals"]["died_idle_s"] = {edge: 1}
        assert not find._is_a_status(whole)


def test_nothing_reaches_the_terminal_but_text(changed: Tuple[int, Path], status: Any) -> None:
    pid, path = changed
    seen = json.loads(path.read_text())
    (origin,) = seen["origins"].values()
    seen["origins"]["http://\x1b]0;title\x07\n:1"] = {**origin, "checkouts": 1}
    path.write_text(json.dumps(seen))
    done = status(pid)
    assert "http://?]0;title??:1" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_file_of_an_earlier_process_with_its_pid(
    changed: Tuple[int, Path], status: Any
) -> None:
    pid, path = changed
    path.write_text(json.dumps({**json.loads(path.read_text()), "start_ticks": 1}))
    assert "no status" in status(pid).stdout


def test_watching_ends_with_ctrl_c(answered: Tuple[int, Path]) -> None:
    watch = child_that_stays("-m", "stalepool", "status", "--watch", answered[0])
    assert watch.stdout is not None
    assert "saved 0 requests" in watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=30)
    assert (watch.returncode, err) == (130, "")


def test_origins_of_which_there_is_nothing_to_tell_are_one_line() -> None:
    with shim(), serving() as (_, pool), serving() as (_, another), serving() as (_, third):
        assert [get(each) for each in (pool, another, third, third)] == [200] * 4
        service = this_process()
    ports = tuple(":%d" % each.port for each in (pool, another, third))
    (seen,) = service.seen
    seen["origins"] = {name: o for name, o in seen["origins"].items() if name.endswith(ports)}
    text = page.page([service])
    assert [port in text for port in ports] == [False, False, True]
    assert text.endswith("  no connection was reused yet to 2 origins")


def test_every_name_that_is_counted_is_explained() -> None:
    names = [verdict.value for verdict in Verdict] + list(fallback.REASONS)
    names += [rule.name for rule in request_rules.REPLAY_RULES]
    names += [rule.name for rule in request_rules.DEATH_RULES if rule.name != "not_ended"]
    names += [reason.name for reason in request_rules.MOVE_REASONS]
    names += ["presend_check", "ok", "failed", "would", "windows", "answer_began"]
    names += ["failed_in_request", "silent_in_request"]
    assert not [
        name for name in names if "?" in (explain.words_for(name), explain.remedy_for(name))
    ]
    assert (explain.words_for("x"), explain.remedy_for("x")) == ("?", "?")


def test_what_was_learnt_is_said_in_words() -> None:
    """Of two workers, each of which knows something."""
    now, nothing = time.time(), stats.Knowledge().as_dict()
    known = (
        {**nothing, "observed_idle_limit_s": 5.01},
        {**nothing, "keepalive_probes": "swallowed", "moves_stopped_for_s": 300.0},
    )
    workers = [{"written_at": now, "origins": {"http://a:1": {"knowledge": k}}} for k in known]
    service = Service([Process(n, "u", "x", b"", worker) for n, worker in enumerate(workers)])
    assert learnt(service, "http://a:1", {"died_idle_s": {"5.01": 3}}) == [
        "closes idle connections at about 5.01 s (3 deaths)",
        "swallows keepalive probes",
        "no moves until %s: the last one failed or was slow"
        % time.strftime("%H:%M", time.localtime(now + 300)),
    ]
