"""Which processes are found, and why one has no status."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from conftest import child, child_that_stays
from service_process import SERVICE, Started
from stalepool.cli.status import find
from stalepool_testing import FaultServer

AT = "STALEPOOL_STATUS_DIR"


def test_what_a_process_that_was_killed_has_left_is_swept(at, flaky, place, status, monkeypatch):
    with Started(SERVICE + "ask()", flaky.port, **at) as service:
        service.kill()
    assert len(list(place.iterdir())) == 1
    monkeypatch.setenv(AT, at[AT])
    status()
    assert list(place.iterdir()) == []


CONTAINER = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]


def can_run(prefix):
    is_there = shutil.which(prefix[0]) is not None
    return is_there and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_run(CONTAINER), reason="no namespaces may be made here")
def test_a_service_in_a_container(flaky, status):
    """With process ids of its own, and another /dev/shm, as under systemd's PrivateTmp."""
    mounting = 'mount -t tmpfs none /dev/shm && exec "$@"'
    command = [*CONTAINER, "sh", "-c", mounting, "sh", sys.executable]
    with Started(SERVICE + "ask(); said = [os.getpid()]", flaky.port, command=command) as service:
        assert service.said == ["ready", "1"]
        shown = json.loads(status("--json").stdout)["services"]
    (mine,) = [each for each in shown if "http://127.0.0.1:%d" % flaky.port in str(each)]
    (process,) = mine["processes"]
    assert process["status"]["pid"] == 1 and process["pid"] > 1


REMAPPED = ["unshare", "--user", "--map-user=1000"]


@pytest.mark.skipif(not can_run(REMAPPED), reason="no user namespace may be made here")
def test_a_service_in_a_user_namespace(at, flaky, place, status):
    """Its file has the name of the user that it is inside, and the owner that it has outside."""
    command = [*REMAPPED, sys.executable]
    with Started(SERVICE + "ask()", flaky.port, command=command, **at) as service:
        assert [path.name for path in place.parent.iterdir()] == ["stalepool-1000"]
        assert "discarded 0 connections" in status(service.pid).stdout
    # and who is in there, too, gives users the same numbers
    script = (
        "import os; from stalepool.cli.status import proc; print(proc.user_inside(os.getpid(), 0))"
    )
    assert child(*command, "-c", script).stdout == "0\n"


OTHER_TIMES = ["unshare", "--time", "--boottime=100000", "--fork", "--kill-child"]


@pytest.mark.skipif(not can_run(OTHER_TIMES), reason="no time namespace may be made here")
def test_a_service_in_a_time_namespace(at, flaky, status):
    """Its /proc tells it another start than ours does; and so it is the other way round."""
    script = SERVICE + "ask(); said = [os.getpid()]"
    with Started(script, flaky.port, command=[*OTHER_TIMES, sys.executable], **at) as service:
        pid = service.said[1]
        assert "discarded 0 connections" in status(pid).stdout
        done = child(*OTHER_TIMES, sys.executable, "-m", "stalepool", "status", pid, env=at)
        assert "discarded 0 connections" in done.stdout


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
    "no place for a file": ({AT: "/no/x"}, SERVICE + "ask()", ", or it cannot write below /no/x\n"),
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


def test_uwsgi_or_a_frozen_application_says_why_it_is_off(tmp_path, status):
    """There is no python in the name of the program."""
    shutil.copy(os.path.realpath(sys.executable), tmp_path / "serve")
    environ = {"STALEPOOL_MODE": "activ", "PYTHONHOME": sys.base_prefix, "STALEPOOL": "1"}
    words = [tmp_path / "serve", "-c", "import ssl; print(1, flush=True); input()"]
    with child_that_stays(*words, stdin=subprocess.PIPE, env=environ) as other:
        assert other.stdout.readline() == "1\n"
        said = [status(other.pid).stdout, status().stdout]
        other.communicate("\n")
    line = r"\(pid %d, user .*\): off: STALEPOOL_MODE='activ' is not" % other.pid
    assert [len(re.findall(line, each)) for each in said] == [1, 1]


def test_a_process_that_is_not_there_or_has_no_shim(status):
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with sleeping as other, subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # nobody has asked for its status
        gone = "no such process"
        closed = gone if os.geteuid() == 0 else "cannot be asked: "
        for pid, words in (2**22, gone), (ended.pid, closed), (other.pid, find.WITHOUT):
            done = status(pid)
            assert (done.returncode, done.stderr) == (1, "")
            assert str(pid) in done.stdout and words in done.stdout
        assert find.WITHOUT not in status().stdout
        other.kill()


def test_a_file_that_is_not_the_processs_or_cannot_be_used(answered, status):
    """What is in it is not taken on trust: test_content."""
    pid, path = answered
    there = "", [str(path.parent)], os.geteuid(), path.name
    before = path.read_bytes()
    ticks = json.loads(before)["start_ticks"]
    assert find._newest(*there, ticks)[0]["pid"] == pid
    assert find._newest(*there, ticks - 2) == (None, None)  # of an earlier one with its pid
    path.write_bytes(b"{")
    done, as_json = status(pid), status("--json", pid)
    path.write_bytes(before)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (1, "", 1)
    assert "its status file %s cannot be used: it is no JSON\n" % path in done.stdout
    assert json.loads(as_json.stdout)["services"][0]["processes"][0]["is_off"] is True


def test_a_directory_open_to_all_is_named(answered, status, monkeypatch, request):
    pid, path = answered
    monkeypatch.setenv(AT, str(path.parent.parent))
    request.addfinalizer(lambda: path.parent.chmod(0o700))
    path.parent.chmod(0o777)
    done = status(pid)
    with subprocess.Popen(["sleep", "60"]) as other:
        everybody = status().stdout
        other.kill()
    words = "its directory %s cannot be used: belongs to, or may be written to by, another user"
    assert done.returncode == 1
    for said in done.stdout, everybody:
        assert words % path.parent in said and "(pid %d," % other.pid not in said


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be another user")
#: users that nobody else has: not the services that another worker of xdist runs at the moment
ITS_USER, ANOTHER = (base + os.getpid() % 7000 for base in (50000, 57000))

#: becomes another user; what is imported later might lie where that one may not read
BECOME = """
import ctypes, locale, os, sys
from stalepool.cli.main import main
os.setgroups([]), os.setgid({user}), os.setuid({user})
ctypes.CDLL(None).prctl(4, {is_open}, 0, 0, 0)  # PR_SET_DUMPABLE: 1 is as after an exec
"""


#: it has had no answer, and its user may not look into it either
WORKER = """
worker = os.fork() or signal.pause()
import atexit
atexit.register(os.kill, worker, signal.SIGKILL)
"""


@contextlib.contextmanager
def another_users(is_open=True, more=""):
    """A service that begins as root, as uWSGI and Apache do, and has been answered once by then.

    :param is_open: its user may look into it, as after an exec.
    :returns: it, and the setting of its directory, which is open to all as /dev/shm is.
    """
    become = BECOME.format(user=ITS_USER, is_open=int(is_open))
    script = SERVICE + "ask()" + become + "from stalepool import status; status._make_due(); ask()"
    script += more
    with tempfile.TemporaryDirectory() as directory, FaultServer() as server:
        os.chmod(directory, 0o1777)
        at = {AT: directory}
        with Started(script, server.port, **at) as started:
            yield started, at


@pytest.fixture(scope="module")
def running():
    with another_users() as found:
        yield found


def asked_as(user, at, *words):
    script = BECOME.format(user=user, is_open=1) + "sys.exit(main(sys.argv[1:]))"
    return child("-c", script, "status", *words, env=at)


SEEN = "python -c (pid {}, user %d): saved 0 requests" % ITS_USER
UNSEEN = "(pid {}, user %d): cannot be asked: only root and %d may" % (ITS_USER, ITS_USER)
NOBODY = "No process of yours (root may ask those of others) runs with"


@as_root
@pytest.mark.parametrize(
    ("user", "names_it", "said"),
    [
        *((0, True, SEEN), (0, False, SEEN), (ITS_USER, False, SEEN)),
        *((ANOTHER, True, UNSEEN), (ANOTHER, False, NOBODY)),
    ],
    ids=["root names it", "root", "its own user", "another one names it", "another one"],
)
def test_a_service_of_another_user(user, names_it, said, running):
    started, at = running
    done = asked_as(user, at, *[started.pid] * names_it)
    assert done.stderr == "" and said.format(started.pid) in done.stdout
    assert done.returncode == (said != SEEN) or user == 0  # root sees the other services, too


@as_root
def test_one_that_its_own_user_may_not_look_into_is_seen_by_its_file():
    with another_users(is_open=False, more=WORKER) as (closed, at):
        done = asked_as(ITS_USER, at)
        (file,) = Path(at[AT], "stalepool-%d" % ITS_USER).iterdir()
        assert [path.stat().st_uid for path in (file.parent, file)] == [ITS_USER] * 2
    assert (done.returncode, done.stderr) == (0, "")
    assert "(pid %d and 1 other " % closed.pid in done.stdout and find.FORKED in done.stdout


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here: see util-linux")
def test_a_containers_root_sees_its_file_and_is_told_what_it_lacks(running):
    started, at = running
    without = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", sys.executable]
    roots = "(pid 1, user root): cannot be asked: only root with CAP_SYS_PTRACE may"
    for asked, environ, said in ([], at, SEEN), ([started.pid], {}, UNSEEN), ([1], {}, roots):
        done = child(*without, "-m", "stalepool", "status", *asked, env=environ)
        assert done.stderr.startswith("stalepool status: this root has no CAP_SYS_PTRACE")
        assert done.stderr.count("\n") == 1 and said.format(started.pid) in done.stdout
