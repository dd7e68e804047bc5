"""The status file: what is in it, when it is written, and that it costs nothing but itself."""

import contextlib
import itertools
import json
import logging
import os
import resource
import sys
import threading
import time
from types import ModuleType

import pytest
import urllib3

import lanes
import stalepool
from breaks import breaks
from injection import Foreign, injecting
from pools import get, serving, shim
from replay_tools import side_by_side
from service_process import SERVICE, Started
from stalepool import fallback, status, status_file
from stalepool.cli.status import proc
from stalepool_testing import Close, FaultServer, Respond, no_hub_switch

pytestmark = pytest.mark.skipif(not proc.has_proc(), reason="there is no /proc here")


def own_file(place):
    (found,) = place.glob("%d-*" % os.getpid())
    return found


def write_due_now():
    status._make_due()
    status.write_due()


def test_what_is_in_it_after_an_answer_and_after_a_failure(tmp_path, place):
    """Nobody else may read it."""
    script = [Respond(200), Close(), Respond(200), Close()]
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, os.umask(0))
        stack.enter_context(shim(status_dir=str(tmp_path), replay="idempotent"))
        server, pool = stack.enter_context(serving(script))
        assert [get(pool), get(pool)] == [200, 200]
        write_due_now()
        file = own_file(place)
        assert [path.stat().st_mode & 0o777 for path in (place, file)] == [0o700, 0o600]
        seen = json.loads(file.read_text())
        assert seen.pop("written_at") >= seen["since"] and seen.pop("start_ticks") > 0
        assert seen == json.loads(json.dumps(stalepool.snapshot()))
        status._make_due()
        with pytest.raises(urllib3.exceptions.ProtocolError):
            pool.request("POST", "/")
        origins = json.loads(file.read_text())["origins"]
    # others' may be there, of connections that are alive yet
    assert origins["http://127.0.0.1:%d" % server.port]["gone"] == {"failed_in_request": 2}


def test_it_is_written_at_most_every_few_seconds(tmp_path, place):
    """And less often where the snapshot takes long: no other green thread runs meanwhile."""
    make = status.snapshot
    with shim(status_dir=str(tmp_path)), serving() as (_, pool):
        get(pool)
        written = own_file(place).stat().st_ino
        for _ in range(50):
            get(pool)
        assert own_file(place).stat().st_ino == written
        for took_s in (0.02, 0.2):
            status._make_due()
            began = time.monotonic()
            with breaks("snapshot", by=lambda hook, s=took_s: time.sleep(s) or make(hook)):
                get(pool)
            before, written = written, own_file(place).stat().st_ino
            assert written != before  # numbers are used again, but not at once
            assert min(1000 * took_s, 60) <= status.due_at - began < 70


def test_a_reader_always_finds_it_whole(tmp_path, place):
    with shim(status_dir=str(tmp_path)), serving() as (_, pool):
        get(pool)
        name, stop = own_file(place), threading.Event()

        def read():
            seen = set()
            while not stop.is_set():
                seen.add(json.loads(name.read_text())["pid"])
            return seen

        def write():
            try:
                side_by_side([lambda: [write_due_now() for _ in range(50)]] * 3)
            finally:
                stop.set()

        assert side_by_side([read, write])[0] == {os.getpid()}
        assert os.listdir(place) == [name.name]


def test_it_moves_with_the_setting_and_says_that_it_is_off(tmp_path, place):
    other = tmp_path / "other"
    other.mkdir()
    with shim(status_dir=str(tmp_path)), serving() as (_, pool):
        assert json.loads(own_file(place).read_text())["off_because"] is None
        stalepool.install(status_dir=str(other))
        assert os.listdir(place) == []
        stalepool.uninstall()
        write_due_now()  # nothing is due
        seen = json.loads(own_file(other / place.name).read_text())
        assert (seen["installed"], seen["mode"]) == (False, None)
        assert seen["off_because"] == "stalepool.uninstall() was called"
        stalepool.install(status_dir="off")
        get(pool)
        assert status.due_at == float("inf")
        stalepool.uninstall()
        assert os.listdir(other / place.name) == [] and status_file.written is None


def nobody_elses(place, stack):
    place.mkdir()
    try:
        os.chown(place, 65534, 65534)
    except PermissionError:
        pytest.skip("only root can give a directory away")


def full_disk(place, stack):
    """As far as it can be had everywhere: no file of this process may have a byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))


BAD = {
    "a link": lambda place, stack: place.symlink_to(place.parent),
    "a file": lambda place, stack: place.write_text("junk"),
    "open to all": lambda place, stack: (place.mkdir(), place.chmod(0o777)),
    "nobody else's": nobody_elses,
    "a full disk": full_disk,
    "/proc": lambda place, stack: None,
    "nobody asked for one": lambda place, stack: stack.enter_context(
        breaks("places of the status file", by=lambda *args: ["/proc/x/stalepool"])
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_directory_costs_the_status_alone(name, tmp_path, place, caplog):
    """Where nobody asked for a file, no warning is given: without a log it would go to stderr."""
    directory = {"/proc": "/proc", "nobody asked for one": "auto"}.get(name, str(tmp_path))
    caplog.set_level(logging.INFO)
    with contextlib.ExitStack() as stack:
        _, pool = stack.enter_context(serving())
        BAD[name](place, stack)
        stack.enter_context(shim(falls_back=True, status_dir=directory))
        fallback.forget()
        caplog.clear()
        for _ in range(3):
            status._make_due()
            assert get(pool) == 200
        assert fallback.counts() == {"status_failed": 3}
        assert status.due_at > status.monotonic() + 200
    (line,) = [record for record in caplog.records if record.name == "stalepool.fallback"]
    assert "status_failed" in line.getMessage()
    assert line.levelno == (logging.INFO if directory == "auto" else logging.WARNING)
    assert name != "a full disk" or list(place.iterdir()) == []


def test_no_link_is_followed(tmp_path, place):
    with shim(falls_back=True, status_dir=str(tmp_path)), serving() as (_, pool):
        get(pool)
        temporary = "%s.%d" % (own_file(place).name, status_file._writes.value)
        (place / temporary).symlink_to(tmp_path / "elsewhere")
        write_due_now()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # its finalizer closes it
@pytest.mark.parametrize("kind", [Foreign, KeyboardInterrupt])
def test_a_signal_handlers_exception_leaves_no_descriptor_and_no_file(kind, tmp_path, place):
    """Unless it comes between the opening of the directory and its block, or as that closes it."""

    def raise_it():
        raise kind

    def left():
        return len(os.listdir("/proc/self/fd")), len([p for p in os.listdir(place) if p[-1] != "n"])

    lost = []
    with shim(falls_back=True, status_dir=str(tmp_path)):
        write_due_now()
        now = stalepool.snapshot()
        for line in itertools.count():
            was_left = left()
            with contextlib.suppress(kind), injecting(line, raise_it) as places:
                status_file.write(now, 0.0)
            lost += places if left() != was_left else []
            if not places:
                break
    assert line > 30 and len(lost) <= 2, lost


FORKS = """
for number in range(5):
    if os.fork() == 0:
        ask()
        os._exit(0) if number else sys.exit()
    os.wait()
"""


def test_the_files_of_children(at, place):
    """A child leaves its parent's file alone. Those of children that ended at once do not pile up:
    multiprocessing's end with os._exit(), which calls nothing at exit.
    """
    with FaultServer() as server, Started(SERVICE + FORKS, server.port, **at) as service:
        names = [path.name for path in place.iterdir()]
    assert len(names) == 2 and any(name.startswith("%d-" % service.pid) for name in names)


#: an audit hook, whose own exception looks like one of a signal handler
VETO = """
import os, sys
class Veto(Exception): pass
def hook(event, args):
    if event in ("os.mkdir", "os.rename", "os.remove"): raise Veto(event)
sys.addaudithook(hook)
"""
#: one that was registered before urllib3 was imported is called after ours
LATE = "import atexit\natexit.register(lambda: ask())\n"
AT_ONCE = "from stalepool import status_file as f; f.INTERVAL_S = f.INTERVAL_RATIO = 0\n"


@pytest.mark.parametrize(
    "script",
    [LATE + SERVICE + AT_ONCE + "ask()", VETO + SERVICE + "ask(); ask()"],
    ids=["a request in a handler at exit", "a sandbox that forbids it"],
)
def test_no_file_is_left_and_no_request_fails(script, tmp_path, at, run_python):
    with FaultServer() as server:
        # -B: Python's own files
        run_python(script, server.port, env=at, flags=["-B"], complains=True)
        assert len(server.journal) == 2
    assert list(tmp_path.glob("*/*")) == []


def write_without_a_switch():
    with serving() as (_, pool):
        assert get(pool) == 200
        before = os.stat(status_file.written).st_ino
        with no_hub_switch():
            write_due_now()
    assert os.stat(status_file.written).st_ino != before and fallback.counts() == {}


@pytest.mark.parametrize("world", lanes.first(1, ["eventlet", "gevent"]))
def test_in_a_green_process_it_never_yields(world, at, call_python):
    call_python(write_without_a_switch, world=world, env=at)


def test_it_is_never_written_between_a_check_and_its_request(tmp_path, monkeypatch):
    """All that is written, sent and checked, in the order in which it happens."""
    events = []

    def noted(name, call):
        return lambda *args: events.append(name) or call(*args)

    with shim(status_dir=str(tmp_path), presend_check=True), serving() as (_, pool):
        get(pool)
        conn, check = pool.pool.queue[-1], urllib3.connectionpool.is_connection_dropped
        monkeypatch.setattr(conn, "send", noted("send", conn.send))
        monkeypatch.setattr(urllib3.connectionpool, check.__name__, noted("check", check))
        with breaks("status file", by=noted("write", status.write_due)):
            for _ in range(3):
                status._make_due()
                assert get(pool) == 200
        monkeypatch.undo()
    assert events == ["check", "send", "write"] * 3


def test_the_version_of_what_is_loaded_is_told(monkeypatch):
    snapshot, loaded = stalepool.snapshot, ModuleType("loaded")
    loaded.__version__ = "1.2.3"
    for name in ("stalepool", "urllib3", "wrapt", "eventlet", "gevent", "requests"):
        monkeypatch.setitem(sys.modules, name, loaded)
        assert snapshot()["versions"][name] == "1.2.3", name
