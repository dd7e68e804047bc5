"""The status file, and ``stalepool status``, which reads it: real processes, asked from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import urllib3
import wrapt

import stalepool
from conftest import clean_environ
from pools import get, serving, shim
from stalepool import fallback, runtime, stats, status, summary
from stalepool.cli.status import explain, find, page, proc, report
from stalepool.cli.status.find import Process
from stalepool.cli.status.page import learnt
from stalepool.cli.status.services import Service
from stalepool.connection import request_rules
from stalepool.settings import SETTINGS
from stalepool.sockets.verdict import Verdict
from stalepool.stats import summed
from stalepool_testing import Close, FaultServer, ResetAfter, Respond
from worlds import WITH_TESTS

pytestmark = pytest.mark.skipif(not proc.has_proc(), reason="there is no /proc here")

USER = os.geteuid()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory in which the files of this user lie, below ``status_dir``."""
    return tmp_path / ("stalepool-%d" % USER)


@contextlib.contextmanager
def kept_in(directory: Path, **settings: Any) -> Iterator[None]:
    with shim(status_dir=str(directory), **settings):
        yield


def pass_by_now() -> None:
    status._make_due()
    status.pass_by()


def own_file(place: Path) -> Path:
    (found,) = place.glob("%d-*" % os.getpid())
    return found


# -- the file --------------------------------------------------------------------------------------


def test_an_answer_writes_what_the_snapshot_says(tmp_path: Path, place: Path) -> None:
    with kept_in(tmp_path, replay="idempotent"), serving([Respond(200), Close()]) as (_, pool):
        assert [get(pool), get(pool)] == [200, 200]
        pass_by_now()
        seen = json.loads(own_file(place).read_text())
        assert seen.pop("written_at") >= seen["since"]
        assert seen.pop("start_ticks") > 0
        assert seen == json.loads(json.dumps(stalepool.snapshot()))
    assert seen["totals"]["saved"] == {"replayed": 1, "kept_off": 0, "reconnected": 0}
    assert seen["settings"]["status_dir"] == {"value": str(tmp_path), "from": "install()"}


def test_nobody_else_may_read_it(tmp_path: Path, place: Path) -> None:
    old = os.umask(0)
    try:
        with kept_in(tmp_path), serving() as (_, pool):
            get(pool)
            assert own_file(place).stat().st_mode & 0o777 == 0o600
            assert place.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(old)


def test_it_is_written_at_most_every_few_seconds(tmp_path: Path, place: Path) -> None:
    with kept_in(tmp_path), serving() as (_, pool):
        get(pool)
        first = own_file(place).stat().st_ino
        for _ in range(50):
            get(pool)
        assert own_file(place).stat().st_ino == first
        status._make_due()
        get(pool)
        assert own_file(place).stat().st_ino != first


def test_a_request_that_fails_writes_it_too(tmp_path: Path, place: Path) -> None:
    with kept_in(tmp_path), serving([Close()]) as (server, pool):
        status._make_due()
        with pytest.raises(urllib3.exceptions.ProtocolError):
            get(pool)
        origins = json.loads(own_file(place).read_text())["origins"]
        # others' may be there, of connections that are alive yet
        assert origins["http://127.0.0.1:%d" % server.port]["gone"] == {"failed_in_request": 1}


def test_a_reader_always_finds_it_whole(tmp_path: Path, place: Path) -> None:
    with kept_in(tmp_path), serving() as (_, pool):
        get(pool)
        name, stop, seen = own_file(place), threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                seen.append(json.loads(name.read_text())["pid"])

        reader = threading.Thread(target=read)
        reader.start()
        writers = [
            threading.Thread(target=lambda: [pass_by_now() for _ in range(50)]) for _ in range(3)
        ]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        reader.join()
        assert set(seen) == {os.getpid()}
        assert os.listdir(place) == [name.name]
        assert stalepool.snapshot()["fallbacks"] == {}


def test_uninstalled_it_says_so(tmp_path: Path, place: Path) -> None:
    with kept_in(tmp_path):
        pass_by_now()
        assert json.loads(own_file(place).read_text())["off_because"] is None
        stalepool.uninstall()
        seen = json.loads(own_file(place).read_text())
        assert (seen["installed"], seen["mode"]) == (False, None)
        assert seen["off_because"] == "stalepool.uninstall() was called"


def test_switched_off_there_is_none(tmp_path: Path, place: Path) -> None:
    with kept_in(tmp_path), serving() as (_, pool):
        own_file(place)
        stalepool.install(status_dir="off")
        get(pool)
        assert status.due_at == float("inf")
        stalepool.uninstall()
        assert os.listdir(place) == [] and status._written is None


def test_it_moves_with_the_setting(tmp_path: Path, place: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with kept_in(tmp_path):
        own_file(place)
        stalepool.install(status_dir=str(other))
        assert os.listdir(place) == []
        assert len(os.listdir(other / place.name)) == 1


# -- a directory that is of no use -----------------------------------------------------------------


def a_link(place: Path) -> None:
    place.symlink_to("/tmp")


def a_file(place: Path) -> None:
    place.write_text("junk")


def open_to_all(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


def nobody_elses(place: Path) -> None:
    place.mkdir()
    try:
        os.chown(place, 65534, 65534)
    except PermissionError:
        pytest.skip("only root can give a directory away")


@pytest.mark.parametrize("make", [a_link, a_file, open_to_all, nobody_elses])
def test_a_bad_directory_costs_the_status_alone(
    make: Callable[[Path], None], tmp_path: Path, place: Path, caplog: Any
) -> None:
    make(place)
    costs_the_status_alone(tmp_path, caplog)


def test_the_files_of_children_that_ended_at_once_do_not_pile_up(
    at: Dict[str, str], flaky: Any, place: Path
) -> None:
    """multiprocessing's end with os._exit(), which calls nothing at exit."""
    script = """
for _ in range(5):
    if os.fork() == 0:
        ask()
        os._exit(0)
    os.wait()
"""
    with Started(SERVICE + script, flaky.port, **at) as service:
        names = [path.name for path in place.iterdir()]
    assert len(names) == 2 and any(name.startswith("%d-" % service.pid) for name in names)


def test_where_nobody_asked_for_a_file_stderr_stays_clean(flaky: Any) -> None:
    """A program without a log would get a WARNING there."""
    script = "import stalepool.status as s\ns.directories = lambda *args: ['/proc/x/stalepool']\n"
    with Started(script + SERVICE + "ask()", flaky.port) as service:
        pass
    assert service.err == ""


@pytest.mark.parametrize("directory", ["/proc", "/nowhere/at/all", "/dev/null"])
def test_one_that_cannot_be_written_to(directory: str, caplog: Any) -> None:
    costs_the_status_alone(Path(directory), caplog)


def test_a_full_disk(tmp_path: Path, place: Path, caplog: Any) -> None:
    """As far as it can be had everywhere: no file of this process may have a byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            costs_the_status_alone(tmp_path, caplog)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(place.iterdir()) == []


def costs_the_status_alone(directory: Path, caplog: Any) -> None:
    with serving() as (_, pool), kept_in(directory):
        fallback.forget()
        caplog.clear()
        for _ in range(3):
            status._make_due()
            assert get(pool) == 200
        assert stalepool.snapshot()["fallbacks"] == {"status_failed": 3}
        assert status.due_at > status.monotonic() + 200
    lines = [record for record in caplog.records if record.name == "stalepool.fallback"]
    assert len(lines) == 1 and "status_failed" in lines[0].getMessage()


# -- it never yields -------------------------------------------------------------------------------


@pytest.mark.parametrize("world", ["eventlet", "gevent"])
def test_in_a_green_process_it_never_yields(
    world: str, tmp_path: Path, run_python: Callable[..., Any]
) -> None:
    if find_spec(world) is None:
        pytest.skip("no %s" % world)
    environ = {**WITH_TESTS, "STALEPOOL_STATUS_DIR": str(tmp_path)}
    with FaultServer() as server:
        found = run_python(GREEN, world, tmp_path, server.port, env=environ)
    assert found == [0, {}]


GREEN = """
import json, os, sys
from worlds import enter
enter(sys.argv[1])
import greenlet, stalepool, urllib3
from stalepool import status

pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[3]))
assert pool.request("GET", "/").status == 200
switches = []
status._make_due()
greenlet.settrace(lambda *args: switches.append(args))
status.pass_by()
greenlet.settrace(None)
pool.close()
(place,) = os.listdir(sys.argv[2])
(name,) = os.listdir(os.path.join(sys.argv[2], place))
with open(os.path.join(sys.argv[2], place, name)) as file:
    print(json.dumps([len(switches), json.load(file)["fallbacks"]]))
"""


def test_it_is_never_written_between_a_check_and_its_request(tmp_path: Path) -> None:
    """All that is written, sent and checked, in the order in which it happens."""
    events: List[str] = []
    with kept_in(tmp_path, presend_check=True), serving() as (_, pool):
        get(pool)
        conn = pool.pool.queue[-1]
        stock_send, stock_pass = type(conn).send, status.pass_by
        poolmodule = sys.modules["urllib3.connectionpool"]
        stock_check = poolmodule.is_connection_dropped
        patch = pytest.MonkeyPatch()
        patch.setattr(
            poolmodule,
            "is_connection_dropped",
            lambda conn: events.append("check") or stock_check(conn),
        )
        conn.send = lambda data: events.append("send") or stock_send(conn, data)
        patch.setattr(status, "pass_by", lambda: events.append("write") or stock_pass())
        try:
            for _ in range(3):
                status._make_due()
                assert get(pool) == 200
        finally:
            patch.undo()
            del conn.send
    assert events == ["check", "send", "write"] * 3


# -- processes -------------------------------------------------------------------------------------

SERVICE = """
import os, signal, sys
import stalepool, urllib3
pool = urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
def ask(method="GET"):
    try:
        pool.request(method, "/a/path?token=secret", headers={"X": "secret"})
    except urllib3.exceptions.HTTPError:
        pass
"""


class Started:
    """A child that runs a script, says when it is there, and ends when it is told to."""

    def __init__(
        self, script: str, *args: object, command: Any = (sys.executable,), **variables: str
    ) -> None:
        environ = clean_environ(**variables)
        self.process = subprocess.Popen(
            [
                *[*command, "-c", textwrap.dedent(script) + WAIT],
                *map(str, args),
            ],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().split()

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.err = self.process.communicate(timeout=30)[1]


WAIT = "\nprint('ready', *globals().get('said', ()), flush=True)\nsys.stdin.read()\n"


def stalepool_status(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stalepool", "status", *words],
        env=clean_environ(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def at(tmp_path: Path) -> Dict[str, str]:
    return {"STALEPOOL_STATUS_DIR": str(tmp_path)}


@pytest.fixture
def flaky() -> Iterator[Any]:
    with FaultServer([Respond(200), Close()], default=Respond(200)) as server:
        yield server


def test_a_service_is_shown_from_outside(at: Dict[str, str], flaky: Any) -> None:
    script = SERVICE + "ask(); ask(); ask('POST'); from stalepool import status\n"
    script += "status._make_due(); ask()"
    with Started(script, flaky.port, **at, STALEPOOL_SILENCE_S="20") as service:
        done = stalepool_status(str(service.pid))
        everything = stalepool_status(str(service.pid), "--json", "--explain")
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
    assert "    connections that went: failed_in_request 1" in rest
    (shown,) = json.loads(everything.stdout)["services"]
    assert shown["totals"]["replays"] == {"ok": 1}
    assert shown["processes"][0]["status"]["pid"] == service.pid
    assert "secret" not in done.stdout + everything.stdout
    assert "a/path" not in done.stdout + everything.stdout


def test_it_is_gone_when_its_process_is(at: Dict[str, str], flaky: Any, place: Path) -> None:
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        assert len(list(place.iterdir())) == 1
    assert list(place.iterdir()) == []

    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        service.process.kill()
    assert len(list(place.iterdir())) == 1
    stalepool_status(**at)
    assert list(place.iterdir()) == []


def test_workers_are_summed_and_shown_each_on_request(at: Dict[str, str], flaky: Any) -> None:
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
        together = json.loads(stalepool_status("--json").stdout)["services"]
        page = stalepool_status().stdout
        each = json.loads(stalepool_status("--json", "--each").stdout)["services"]
    (mine,) = [s for s in together if s["processes"][0]["pid"] == service.pid]
    assert [str(each["pid"]) for each in mine["processes"]] == [str(service.pid), *workers]
    assert mine["totals"]["checkouts"] == 4
    assert mine["processes"][3]["note"] == find.FORKED
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
def test_a_service_in_a_container(at: Dict[str, str], flaky: Any) -> None:
    """With process ids of its own, and another /dev/shm, as under systemd's PrivateTmp."""
    mounting = 'mount -t tmpfs none /dev/shm && exec "$@"'
    command = [*CONTAINER, "sh", "-c", mounting, "sh", sys.executable]
    with Started(SERVICE + "ask(); said = [os.getpid()]", flaky.port, command=command) as service:
        assert service.said == ["ready", "1"]
        shown = json.loads(stalepool_status("--json").stdout)["services"]
    origin = "http://127.0.0.1:%d" % flaky.port
    (mine,) = [each for each in shown if origin in each.get("origins", ())]
    (process,) = mine["processes"]
    assert process["status"]["pid"] == 1 and process["pid"] > 1


def test_a_child_leaves_its_parents_file_alone(at: Dict[str, str], flaky: Any) -> None:
    script = (
        SERVICE
        + """
ask()
if os.fork() == 0:
    ask()
    sys.exit()
os.wait()
"""
    )
    with Started(script, flaky.port, **at) as service:
        assert stalepool_status(str(service.pid)).returncode == 0


OFF = {
    "kill switch": ({"STALEPOOL_ENABLED": "0"}, "", "STALEPOOL_ENABLED=0"),
    "wrong setting": (
        {"STALEPOOL_MODE": "activ"},
        "",
        "STALEPOOL_MODE='activ' is not accepted: it",
    ),
    "no wrapt": ({}, "sys.modules['wrapt'] = None\n", "import of wrapt halted"),
    "by hand": ({}, "import stalepool, urllib3; stalepool.uninstall()\n", "uninstall() was called"),
}


@pytest.mark.parametrize("name", OFF)
def test_it_says_why_the_shim_is_off(name: str, at: Dict[str, str], flaky: Any) -> None:
    variables, first, words = OFF[name]
    with Started("import sys\n" + first + SERVICE, flaky.port, **at, **variables) as service:
        done = stalepool_status(str(service.pid))
    assert done.returncode == 1
    assert words in done.stdout
    assert len(done.stdout.splitlines()) <= 2


def test_a_patch_that_does_not_fit(at: Dict[str, str], flaky: Any) -> None:
    script = (
        "import sys, urllib3.connectionpool as pool\npool.is_connection_dropped = lambda c: False\n"
    )
    with Started(script + SERVICE, flaky.port, **at) as service:
        done = stalepool_status(str(service.pid))
    assert done.returncode == 1
    assert "NOT patched: urllib3.connectionpool.is_connection_dropped: takes (c)" in done.stdout


# -- bad input -------------------------------------------------------------------------------------


def test_a_process_that_is_not_there() -> None:
    done = stalepool_status("999999999")
    assert (done.returncode, done.stderr) == (1, "")
    assert "999999999" in done.stdout and "no such process" in done.stdout


def test_a_process_without_the_shim() -> None:
    with Started("import sys", STALEPOOL_MODE="audit") as silent:
        assert "silent: it has not imported urllib3" in stalepool_status(str(silent.pid)).stdout
    with subprocess.Popen(["sleep", "60"]) as other:
        done = stalepool_status(str(other.pid))
        other.kill()
    assert done.returncode == 1 and find.WITHOUT in done.stdout


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ("off", ": keeps no status file: STALEPOOL_STATUS_DIR=off"),
        ("/nonexistent/x", "its Python has no stalepool, or it cannot write below /nonexistent/x"),
    ],
)
def test_a_process_that_keeps_no_file(flaky: Any, chosen: str, says: str) -> None:
    with Started(SERVICE + "ask()", flaky.port, STALEPOOL_STATUS_DIR=chosen) as service:
        done = stalepool_status(str(service.pid))
    assert says in done.stdout and (done.returncode, done.stderr) == (1, "")
    assert service.err.count("\n") == (chosen != "off")  # one line


def test_what_was_written_long_ago_says_so() -> None:
    with shim(), serving() as (_, pool):
        get(pool)
        seen = json.loads(json.dumps(stalepool.snapshot()))
    pages = [
        page.page([Service([Process(1, "u", "x", b"", {**seen, "written_at": time.time() - ago})])])
        for ago in (5, 600)
    ]
    assert ["  as of 10 min ago: " in text for text in pages] == [False, True]


@pytest.mark.parametrize("word", ["x", "1.5", ""])
def test_a_pid_that_is_none(word: str) -> None:
    done = stalepool_status(word)
    assert done.returncode == 2 and "PID" in done.stderr and "Traceback" not in done.stderr


def replaced_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


GARBAGE: Dict[str, Callable[[Path], Any]] = {
    "no JSON": lambda path: path.write_text("{"),
    "not even text": lambda path: path.write_bytes(b"\xff\x00" * 9),
    "another shape": lambda path: path.write_text("[1, 2]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "empty": lambda path: path.write_text(""),
    "of another version": lambda path: path.write_text('{"version": "9", "pid": 1}'),
    "too large": lambda path: os.truncate(path, find.LARGEST_FILE + 1),
    "a fifo": replaced_by_a_fifo,
    "a link": replaced_by_a_link,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_named_in_one_sentence(
    name: str, at: Dict[str, str], flaky: Any, place: Path
) -> None:
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        (path,) = place.iterdir()
        GARBAGE[name](path)
        done = stalepool_status(str(service.pid))
        as_json = stalepool_status("--json", str(service.pid))
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert "its status file %s cannot be used: it " % path in line
    assert json.loads(as_json.stdout)["services"][0]["processes"][0]["is_off"] is True
    assert "Traceback" not in service.err


def test_a_directory_open_to_all_is_named(at: Dict[str, str], flaky: Any, place: Path) -> None:
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        place.chmod(0o777)
        done = stalepool_status(str(service.pid))
        with subprocess.Popen(["sleep", "60"]) as other:
            everybody = stalepool_status(**at).stdout
            other.kill()
        place.chmod(0o700)
    words = "its directory %s cannot be used: belongs to, or may be written to by, another" % place
    assert done.returncode == 1 and words in done.stdout
    assert words in everybody and "(pid %d," % other.pid not in everybody


JUNK = [None, True, -1, 1e300, float("nan"), float("inf"), "junk", [], [[1]], {}, {"x": {"y": []}}]


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
        seen = {"written_at": time.time(), "start_ticks": 1, **stalepool.snapshot()}
    whole = json.loads(json.dumps(seen))
    # other tests' connections may be alive yet, and each origin would be junked like this one
    whole["origins"] = {
        name: entry
        for name, entry in whole["origins"].items()
        if name.endswith(":%d" % server.port)
    }
    directory, taken = os.open(tmp_path, os.O_RDONLY), 0
    try:
        for changed in with_junk(whole):
            (tmp_path / "file").write_text(json.dumps(changed))
            try:
                read = find._read(directory, "file", USER)
            except ValueError:
                continue
            taken += 1
            services = [Service([Process(1, "u", "x", b"", read)])]
            assert page.page(services) and explain.explanation(services)
            assert report.report(services)
            read["mode"] = "audit"
            assert report.report(services)
            json.dumps(services[0].as_dict())
    finally:
        os.close(directory)
    assert find._is_a_status(whole) and taken > 50


@pytest.mark.parametrize("edge", ["e", "1..2", "", "nan"])
def test_an_age_that_is_no_number(edge: str) -> None:
    with shim():
        seen = {"written_at": 0.0, "start_ticks": 1, **json.loads(json.dumps(stalepool.snapshot()))}
    assert find._is_a_status(seen)
    seen["totals"]["died_idle_s"] = {edge: 1}
    assert not find._is_a_status(seen)


def test_nothing_reaches_the_terminal_but_text(at: Dict[str, str], flaky: Any, place: Path) -> None:
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        (path,) = place.iterdir()
        seen = json.loads(path.read_text())
        (origin,) = seen["origins"].values()
        seen["origins"]["http://\x1b]0;title\x07\n:1"] = {**origin, "checkouts": 1}
        path.write_text(json.dumps(seen))
        done = stalepool_status(str(service.pid))
    assert "http://?]0;title??:1" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_file_of_an_earlier_process_with_its_pid(
    at: Dict[str, str], flaky: Any, place: Path
) -> None:
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        (path,) = place.iterdir()
        seen = {**json.loads(path.read_text()), "start_ticks": 1}
        path.write_text(json.dumps(seen))
        assert "silent" in stalepool_status(str(service.pid)).stdout


def test_watching_ends_with_ctrl_c(at: Dict[str, str], flaky: Any) -> None:
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        watch = subprocess.Popen(
            [sys.executable, "-m", "stalepool", "status", "--watch", str(service.pid)],
            env=clean_environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert watch.stdout is not None
        assert "saved 0 requests" in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        _, err = watch.communicate(timeout=30)
    assert (watch.returncode, err) == (130, "")


def test_origins_of_which_there_is_nothing_to_tell_are_one_line() -> None:
    with shim(), serving() as (_, pool), serving() as (_, another), serving() as (_, third):
        assert [get(each) for each in (pool, another, third, third)] == [200] * 4
        seen = {"written_at": time.time(), **json.loads(json.dumps(stalepool.snapshot()))}
    ports = [":%d" % each.port for each in (pool, another, third)]
    origins = {name: each for name, each in seen["origins"].items() if name.endswith(tuple(ports))}
    text = page.page([Service([Process(1, "u", "x", b"", {**seen, "origins": origins})])])
    assert [port in text for port in ports] == [False, False, True]
    assert text.endswith("  no connection was reused yet to 2 origins")


# -- words -----------------------------------------------------------------------------------------


def test_every_name_that_is_counted_is_explained() -> None:
    names = [verdict.value for verdict in Verdict] + list(fallback.REASONS)
    names += [rule.refusal for rule in request_rules.REPLAY_RULES]
    names += [rule.refusal for rule in request_rules.DEATH_RULES if rule.refusal != "not_ended"]
    names += [reason.name for reason in request_rules.MOVE_REASONS]
    names += ["presend_check", "ok", "failed", "would", "windows", "answer_began", "half_sent"]
    names += ["failed_in_request", "silent_in_request"]
    assert not [
        name for name in names if "?" in (explain.words_for(name), explain.remedy_for(name))
    ]
    assert (explain.words_for("x"), explain.remedy_for("x")) == ("?", "?")


def test_explained_is_what_was_counted(at: Dict[str, str], flaky: Any) -> None:
    script = SERVICE + "ask(); ask(); from stalepool import status; status._make_due(); ask()"
    with Started(script, flaky.port, **at) as service:
        done = stalepool_status("--explain", str(service.pid))
    explained = done.stdout.partition("\n\n")[2]
    assert "failed_in_request" in explained and "-> " in explained
    assert "foreign_process" not in explained


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (10800, "3 h"), (2e5, "2 d")],
)
def test_durations(seconds: float, words: str) -> None:
    assert summary.duration(seconds) == words


def test_a_connection_has_gone_for_one_of_a_closed_set() -> None:
    """Each has words of its own; what was kept is not among them."""
    reasons = {verdict.value for verdict in Verdict} - stats.KEPT
    in_request = {"failed_in_request": 2, "silent_in_request": 1}
    origin = stats.Origin("")
    for verdict in Verdict:
        origin.count("verdicts", verdict.value)
    for name in ("presend_check", "probe_unanswered", "failed"):
        origin.count("moved", name)
    origin.count_end("replays", "ok", is_silent=False)
    origin.count_end("replays", "ok", is_silent=True)
    origin.count_end("replays_refused", "method", is_silent=False)
    gone = origin.as_dict()["gone"]
    assert set(gone) == reasons | {"presend_check", *in_request}
    assert {**gone, **in_request, "probe_unanswered": 2} == gone


def test_the_settings_say_where_they_are_from() -> None:
    with shim(silence_s=20):
        explained = stalepool.snapshot()["settings"]
    assert list(explained) == list(SETTINGS)
    assert explained["silence_s"] == {"value": 20.0, "from": "install()"}
    assert explained["mode"] == {"value": "active", "from": "default"}


# a thread of an earlier test may not have ended yet: the child's own is the only one that goes on
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_the_child_counts_from_its_own_beginning() -> None:
    reader, mouth = os.pipe()
    before = stalepool.snapshot()["since"]
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.write(mouth, json.dumps([stalepool.snapshot()["since"], status.due_at]).encode())
        os._exit(0)
    os.close(mouth)
    with os.fdopen(reader) as file:
        since, due_at = json.load(file)
    os.waitpid(child, 0)
    assert since > before and due_at == 0.0
    assert runtime.fork_generation == 0


def test_a_reset_connection_is_no_request_saved(at: Dict[str, str]) -> None:
    with shim(), serving([Respond(200), ResetAfter(0)]) as (server, pool):
        get(pool)
        server.wait_idle_step()
        get(pool)
        seen = stalepool.snapshot()
    assert summary.sentence(seen, 5, False) == (
        "saved 0 requests in 5 s: 0 sent once more, 0 kept off a connection that only looked "
        "alive, 0 reconnected; discarded 1 connection at checkout; 0 fallbacks"
    )


def test_what_was_learnt_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two workers, each of which knows something."""
    now = [1000.0]
    monkeypatch.setattr(stats, "monotonic", lambda: now[0])

    def seen_by(origin: stats.Origin) -> Dict[str, Any]:
        known = {"knowledge": origin.knowledge.as_dict()}
        return {"written_at": time.time(), "origins": {"http://a:1": {**origin.as_dict(), **known}}}

    one, other = stats.Origin(""), stats.Origin("")
    for _ in range(3):
        now[0] += 60
        one.knowledge.note_fin(5.01)
        one.count_death(5.01)
    other.knowledge.note_probes_swallowed()
    other.knowledge.stop_moves()
    workers = [seen_by(one), seen_by(other)]
    service = Service([Process(n, "u", "x", b"", worker) for n, worker in enumerate(workers)])
    total = summed([worker["origins"]["http://a:1"] for worker in workers])
    limit, probes, moves = learnt(service, "http://a:1", total)
    assert limit == "closes idle connections at about 5.01 s (3 deaths)"
    assert probes == "swallows keepalive probes"
    clock = time.strftime("%H:%M", time.localtime(time.time() + stats.NO_MOVES_FOR_S))
    assert moves in (
        "no moves until %s: the last one failed or was slow" % each
        for each in (clock, time.strftime("%H:%M", time.localtime(time.time() + 299)))
    )
