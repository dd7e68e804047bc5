"""``stalepool status``: real processes, asked from outside."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import urllib3

import stalepool
from conftest import child_that_stays
from pools import get, serving, shim
from service_process import SERVICE, Started, this_process
from stalepool import fallback, stats
from stalepool.cli.status import content, explain, find, page, proc, report
from stalepool.cli.status.find import Process
from stalepool.cli.status.services import Service
from stalepool.connection import request_rules
from stalepool.sockets.verdict import Verdict
from stalepool_testing import Close, FaultServer, ResetAfter, Respond

pytestmark = pytest.mark.skipif(not proc.has_proc(), reason="there is no /proc here")

AT = "STALEPOOL_STATUS_DIR"
DUE = "from stalepool import status; status._make_due(); ask()\n"


@pytest.fixture
def at(tmp_path):
    return {AT: str(tmp_path)}


@pytest.fixture
def status(stalepool_here):
    return functools.partial(stalepool_here, "status")


@pytest.fixture
def flaky():
    with FaultServer([Respond(200), Close()]) as server:
        yield server


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A service that has had an answer: its pid, and its status file."""
    directory = tmp_path_factory.mktemp("status")
    with FaultServer() as server:
        with Started(SERVICE + "ask()", server.port, **{AT: str(directory)}) as service:
            (path,) = directory.glob("*/*")
            yield service.pid, path
    assert service.err == ""


@pytest.fixture
def changed(answered):
    """The same for a test that changes the file."""
    pid, path = answered
    before = path.read_bytes()
    yield pid, path
    for each in path.parent.iterdir():
        each.unlink()
    path.write_bytes(before)


def services(done):
    return json.loads(done.stdout)["services"]


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
    (shown,) = services(everything)
    assert shown["totals"]["replays"] == {"ok": 1}
    assert shown["processes"][0]["status"]["pid"] == service.pid
    assert "failed_in_request" in explained and "-> " in explained
    assert "foreign_process" not in explained  # which was not counted
    assert not re.search("secret|a/path", done.stdout + everything.stdout)


def test_what_a_process_that_was_killed_has_left_is_swept(at, flaky, place, status, monkeypatch):
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        service.process.kill()
    assert len(list(place.iterdir())) == 1
    monkeypatch.setenv(AT, at[AT])
    status()
    assert list(place.iterdir()) == []


WORKERS = """
said = []
for number in range(3):
    reader, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        if number < 2:
            ask(), ask()
            from stalepool import status; status._make_due(); ask()
        os.write(mouth, b"x")
        signal.pause()
    os.read(reader, 1)
    said.append(child)
import atexit
atexit.register(lambda: [os.kill(child, signal.SIGKILL) for child in said])
"""


def test_workers_are_summed_and_shown_each_on_request(at, flaky, status):
    """One worker has had no answer yet."""
    with Started(SERVICE + WORKERS, flaky.port, **at) as service:
        workers = list(map(int, service.said[1:]))
        shown, together, each = status().stdout, status("--json"), status("--json", "--each")
    notes = [{each["pid"]: each["note"] for each in s["processes"]} for s in services(together)]
    (mine,) = [number for number, pids in enumerate(notes) if service.pid in pids]
    assert notes[mine] == {**dict.fromkeys((service.pid, *workers)), workers[2]: find.FORKED}
    assert services(together)[mine]["totals"]["checkouts"] == 4
    assert "%s (pid %d)" % (find.FORKED, workers[2]) in shown
    by_pid = {s["processes"][0]["pid"]: s for s in services(each)}
    assert set(by_pid) >= {service.pid, *workers}
    assert [by_pid[worker]["totals"]["checkouts"] for worker in workers[:2]] == [2, 2]


CONTAINER = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode != 0,
    reason="no namespaces may be made here",
)
def test_a_service_in_a_container(flaky, status):
    """With process ids of its own, and another /dev/shm, as under systemd's PrivateTmp."""
    mounting = 'mount -t tmpfs none /dev/shm && exec "$@"'
    command = [*CONTAINER, "sh", "-c", mounting, "sh", sys.executable]
    with Started(SERVICE + "ask(); said = [os.getpid()]", flaky.port, command=command) as service:
        assert service.said == ["ready", "1"]
        shown = services(status("--json"))
    (mine,) = [each for each in shown if "http://127.0.0.1:%d" % flaky.port in str(each)]
    (process,) = mine["processes"]
    assert process["status"]["pid"] == 1 and process["pid"] > 1


NO_PATCH = "import urllib3.connectionpool as p\np.is_connection_dropped = lambda c: False\n"
NO_MODULE = "sys.modules['stalepool.connection.checkout'] = None\n"
#: variables, where None leaves the directory out; the script; what is said
OFF = {
    "kill switch": ({"STALEPOOL_ENABLED": "0"}, "import stalepool", "STALEPOOL_ENABLED=0"),
    "wrong setting": ({"STALEPOOL_MODE": "activ"}, "import stalepool", "MODE='activ' is not"),
    "a broken import": ({}, NO_MODULE + SERVICE, "halted"),
    "by hand": ({}, SERVICE + "stalepool.uninstall()", "uninstall() was called"),
    "a patch that does not fit": ({}, NO_PATCH + SERVICE, "NOT patched: urllib3.connectionpool."),
    "no file": ({AT: "off"}, "import stalepool", "keeps no status file: %s=" % AT),
    "no place for a file": ({AT: "/no/x"}, SERVICE + "ask()", ", or it cannot write below /no/x"),
    "a switch": ({AT: None, "STALEPOOL": "1"}, "", "no status: it has not imported urllib3"),
    "a setting": ({AT: None, "STALEPOOL_KEEPALIVE_COUNT": "1"}, "", "it has not imported urllib3"),
}


@pytest.mark.parametrize("name", OFF)
def test_it_says_why_the_shim_is_off_or_is_not_seen(name, at, flaky, status):
    variables, script, words = OFF[name]
    given = {each: value for each, value in {**at, **variables}.items() if value is not None}
    with Started("import sys\n" + script, flaky.port, **given) as service:
        done = status(service.pid)
    assert (done.returncode, done.stderr) == (1, "")
    assert words in done.stdout
    # the fallback is one line more
    assert len(done.stdout.splitlines()) <= 2 + (name == "a patch that does not fit")
    assert service.err.count("\n") <= 1


def test_the_options_of_a_script_are_not_its_pythons(tmp_path):
    script = tmp_path / "serve"
    script.write_text("import sys; print('ready', flush=True); sys.stdin.read()")
    with Started("", "-m", command=[sys.executable, "-X", "dev", script]) as service:
        assert proc.command(service.pid, "python") == "serve"


def test_watching_ends_with_ctrl_c(answered):
    watch = child_that_stays("-m", "stalepool", "status", "--watch", answered[0])
    assert "saved 0 requests" in watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=30)
    assert (watch.returncode, err) == (130, "")


def test_a_process_that_is_not_there_or_has_no_shim(status):
    with subprocess.Popen(["sleep", "60"]) as other:
        for pid, words in (999999999, "no such process"), (other.pid, find.WITHOUT):
            done = status(pid)
            assert (done.returncode, done.stderr) == (1, "")
            assert str(pid) in done.stdout and words in done.stdout
        other.kill()


#: what is written, or done to the file; what is said of it
GARBAGE = {
    "no JSON": (b"{", "it is no JSON"),
    "not even text": (b"\xff\x00" * 9, "it is no JSON"),
    "deep": (b"[" * 100_000, "it is no JSON"),
    "another shape": (b"[1, 2]", "it is not of stalepool's making, or of another version"),
    "too large": (b" " * (content.LARGEST_FILE + 1), "it is too large"),
    "a fifo": (lambda path: (path.unlink(), os.mkfifo(path)), "it is not a file of its user's"),
    "a link": (lambda p: (p.rename(p.with_name("x")), p.symlink_to("x")), "it is a link"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_named_in_one_sentence(name, changed, status):
    (pid, path), (garbage, why) = changed, GARBAGE[name]
    garbage(path) if callable(garbage) else path.write_bytes(garbage)
    done, as_json = status(pid), status("--json", pid)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert line.endswith("its status file %s cannot be used: %s" % (path, why))
    assert services(as_json)[0]["processes"][0]["is_off"] is True


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"start_ticks": 1}, "no status"),  # of an earlier process with its pid
        ({"written_at": time.time() - 3 * 86400}, "  as of 3 d ago: "),
        ({"patched": ["\x1b]0;title\x07\n"]}, "; patched: ?]0;title??\n"),
    ],
    ids=["of another process", "old", "for a terminal"],
)
def test_what_is_in_the_file_is_not_taken_on_trust(edit, said, changed, status):
    pid, path = changed
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    done = status(pid)
    assert said in done.stdout and "\x1b" not in done.stdout


def test_a_directory_open_to_all_is_named(answered, status, monkeypatch):
    pid, path = answered
    monkeypatch.setenv(AT, str(path.parent.parent))
    path.parent.chmod(0o777)
    try:
        done = status(pid)
        with subprocess.Popen(["sleep", "60"]) as other:
            everybody = status().stdout
            other.kill()
    finally:
        path.parent.chmod(0o700)
    words = "its directory %s cannot be used: belongs to, or may be written to by, another user"
    assert done.returncode == 1
    for said in done.stdout, everybody:
        assert words % path.parent in said and "(pid %d," % other.pid not in said


JUNK = [None, True, -1, 1e300, float("nan"), "junk", [], [[1]], {}, {"x": {"y": []}}]


def with_junk(value):
    """The same thing with one part at a time replaced by junk, or left out."""
    if isinstance(value, dict):
        for key in value:
            yield {each: value[each] for each in value if each != key}
            yield {**value, key + "?": value[key]}
            for changed in with_junk(value[key]):
                yield {**value, key: changed}
    yield from JUNK


def test_whatever_a_file_holds_it_is_refused_or_shown(tmp_path):
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
    read = [json.loads(json.dumps(changed)) for changed in with_junk(whole)]
    taken = [seen for seen in read if content.is_a_status(seen)]
    for seen in taken:
        shown = [Service([Process(1, "u", "x", b"", seen)])]
        assert page.page(shown) and explain.explanation(shown)
        json.dumps(shown[0].as_dict())
        seen["mode"] = "audit"
        assert report.report(shown)
    assert content.is_a_status(whole) and len(taken) > 50
    for edge in ("e", "1..2", "", "nan"):  # an age that is no number
        whole["totals"]["died_idle_s"] = {edge: 1}
        assert not content.is_a_status(whole)


def test_origins_of_which_there_is_nothing_to_tell_are_one_line():
    with shim(), serving() as (_, pool), serving() as (_, another), serving() as (_, third):
        assert [get(each) for each in (pool, another, third, third)] == [200] * 4
        service = this_process()
    ports = tuple(":%d" % each.port for each in (pool, another, third))
    (seen,) = service.seen
    seen["origins"] = {name: o for name, o in seen["origins"].items() if name.endswith(ports)}
    text = page.page([service])
    assert [port in text for port in ports] == [False, False, True]
    assert text.endswith("  no connection was reused yet to 2 origins")


def test_every_name_that_is_counted_is_explained():
    rules = [*request_rules.REPLAY_RULES, *request_rules.DEATH_RULES]
    names = [*(verdict.value for verdict in Verdict), *fallback.REASONS]
    names += [*(rule.name for rule in rules), *request_rules.MOVE_REASONS, "presend_check"]
    names += ["ok", "failed", "would", "windows", "failed_in_request", "silent_in_request"]
    for name in names:
        assert "?" not in (explain.words_for(name), explain.remedy_for(name)), name
    assert (explain.words_for("x"), explain.remedy_for("x")) == ("?", "?")


def test_what_was_learnt_is_said_in_words():
    """Of two workers, each of which knows something."""
    now, nothing = time.time(), stats.Knowledge().as_dict()
    known = (
        {**nothing, "observed_idle_limit_s": 5.01},
        {**nothing, "keepalive_probes": "swallowed", "moves_stopped_for_s": 300.0},
    )
    workers = [{"written_at": now, "origins": {"http://a:1": {"knowledge": k}}} for k in known]
    service = Service([Process(n, "u", "x", b"", worker) for n, worker in enumerate(workers)])
    assert page.learnt(service, "http://a:1", {"died_idle_s": {"5.01": 3}}) == [
        "closes idle connections at about 5.01 s (3 deaths)",
        "swallows keepalive probes",
        "no moves until %s: the last one failed or was slow"
        % time.strftime("%H:%M", time.localtime(now + 300)),
    ]
