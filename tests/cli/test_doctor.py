"""``stalepool doctor``: findings about an environment, a program, a file of settings."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import lanes
from conftest import REPOSITORY, child, child_that_stays
from service_process import is_running
from stalepool.cli.doctor import finding, process, questions
from stalepool.cli.doctor.finding import ERROR, OK, WARNING, Finding
from stalepool.settings import Settings
from stalepool_testing.kernel import wait_until


@pytest.fixture(autouse=True)
def pythonpath(monkeypatch):
    """Lead the programs that are examined to this checkout, wherever they run."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def found_in(done):
    """A line for each finding: level, question, and what it says. The exit status is the worst."""
    found = json.loads(done.stdout)["findings"]
    assert all(bool(each["remedy"]) == (each["level"] != OK) for each in found)
    assert done.returncode == max(finding.LEVELS.index(each["level"]) for each in found)
    return "".join("\n%(level)s %(question)s: %(says)s" % each for each in found)


def environment(**variables):
    """What is found in a Python of its own, which has imported nothing yet."""
    return found_in(child("-m", "stalepool", "doctor", "--json", env=variables))


def test_an_environment():
    found = environment(STALEPOOL_SILENCE_S="20")
    assert "\nok patches: patched: urllib3.connectionpool\nok" in found
    assert "\nok settings: silence_s=20.0\n" in found
    assert re.search("\nok keepalive: .*SO_KEEPALIVE 1, TCP_KEEPIDLE 5, TCP_KEEPINTVL 3", found)
    assert " kernel: tcp_retries2 " in found
    for name in ("urllib3", "wrapt", "stalepool"):
        assert re.search("\nok versions: .*%s " % name, found)
    found = environment(STALEPOOL_MODE="activ")
    assert "\nerror settings: STALEPOOL_MODE='activ' is not accepted" in found


def test_a_library_that_only_has_the_name(tmp_path):
    package = tmp_path / "urllib3"
    package.mkdir()
    (package / "__init__.py").write_text("from . import connectionpool; __version__ = '4.0'")
    (package / "connectionpool.py").write_text("class HTTPConnectionPool: pass")
    found = environment(PYTHONPATH=os.pathsep.join(map(str, (tmp_path, REPOSITORY))))
    assert "\nwarning urllib3: urllib3 4.0\n" in found
    assert ".connectionpool.is_connection_dropped: not there\n" in found
    assert "\nwarning keepalive: no connection could be made" in found


#: one of three clients has no read timeout
CLIENTS = """
import requests
from keystoneauth1 import loading
from oslo_config import cfg
for name in ("neutron", "glance", "unused"):
    loading.register_session_conf_options(cfg.CONF, name)
    loading.register_auth_conf_options(cfg.CONF, name)
cfg.CONF([])
for name in ("neutron", "glance"):
    cfg.CONF.set_override("auth_type", "password", name)
cfg.CONF.set_override("timeout", 30, "glance")
"""
GEVENT = "from gevent import monkey; monkey.patch_all(); import urllib3"
LATE = "import urllib3, eventlet; eventlet.monkey_patch()"
EARLY = "import eventlet; eventlet.monkey_patch(); import urllib3"
BROKEN = "import sys; sys.modules['stalepool.connection.checkout'] = None; import urllib3"
ISOLATED = [sys.executable, "-I", "-c", "import urllib3"]
KEYSTONE = "ok patches: patched: keystoneauth1.session, urllib3.connectionpool"
NO_TIMEOUT = "warning timeouts: no read timeout: [neutron] timeout"

#: what a program needs; its code, or its words; the beginnings of what is found
PROGRAMS = [
    ("eventlet", LATE, ["warning order: eventlet's monkey_patch() came after "]),
    ("gevent", GEVENT, ["ok order: gevent's monkey_patch() came before urllib3"]),
    ("urllib3", "pass", ["warning urllib3: no urllib3: no watched process imported it"]),
    ("urllib3", BROKEN, ["error patches: nothing is patched, although urllib3 is loaded"]),
    ("urllib3", ISOLATED, ["error command: stalepool did not start in /"]),
    ("urllib3", ["no-such", "--json"], ["error command: no-such: No such file"]),
    ("oslo_config", CLIENTS, ["ok order: native threads", KEYSTONE, NO_TIMEOUT]),
    ("eventlet", EARLY, ["ok order: eventlet's monkey_patch() came before urllib3"]),
]


@pytest.mark.parametrize(("needs", "program", "beginnings"), lanes.first(7, PROGRAMS))
def test_a_program(needs, program, beginnings, stalepool_here):
    if find_spec(needs) is None:
        pytest.skip("%s is not installed" % needs)
    words = [sys.executable, "-c", program] if isinstance(program, str) else program
    found = found_in(stalepool_here("doctor", "--json", "--", *words))
    for beginning in beginnings:
        assert "\n" + beginning in found
    assert " copies: " not in found  # requests.packages.urllib3 is none


SERVICE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    time.sleep(600)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
import urllib3
open(sys.argv[1], "w").write("%d %d %d" % (os.getppid(), os.getpid(), child.pid))
time.sleep(600)
"""


def test_a_services_worker_is_judged_and_all_that_it_has_started_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "STILL_S", 1.5)
    monkeypatch.setattr(process, "_TO_END_S", 0.1)
    known = process.facts_of([sys.executable, "-c", SERVICE, str(tmp_path / "pids")])
    assert known["snapshot"]["patched"] == ["urllib3.connectionpool"]
    assert known["hub_at_import"] == [""]
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    wait_until(lambda: not any(map(is_running, pids)), "end of the service")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_the_program_as_well(number, status):
    """What it prints goes to stderr."""
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    words = ["-m", "stalepool", "doctor", "--", sys.executable, "-c", program]
    with child_that_stays(*words) as started:
        pid = int(started.stderr.readline())
        started.send_signal(number)
        out, errors = started.communicate(timeout=60)
    assert (started.returncode, out, errors) == (status, "", "")
    assert not Path("/proc", str(pid)).exists()


def test_a_signal_while_the_program_is_being_started(monkeypatch):
    started = []

    class Signalled(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Signalled)
    with pytest.raises(SystemExit) as ended:
        process.facts_of([sys.executable, "-c", "import time; time.sleep(600)"])
    assert (ended.value.code, started[0].returncode) == (143, -signal.SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_program_that_becomes_another_user():
    program = [sys.executable, "-c", "import os, urllib3; os.chdir('/'); os.setuid(12345)"]
    assert process.facts_of(program)["snapshot"]["patched"] == ["urllib3.connectionpool"]


def test_a_program_that_closes_every_descriptor(tmp_path):
    """And has files of its own there."""
    file = tmp_path / "file"
    program = (
        "import os; os.closerange(3, 64); reused = [open(os.devnull) for _ in range(3)]; "
        "reused += [open(%r, 'wb', buffering=0) for _ in range(64)]; import urllib3" % str(file)
    )
    assert process.facts_of([sys.executable, "-c", program]) == {} and file.read_bytes() == b""


UNIT = "[Unit]\nDescription=x\n[Service]\n%s\nExecStart=/bin/x\n"

#: text -> a finding, none of the others is worse
FILES = {
    "STALEPOOL=1\n# a note\n\nexport STALEPOOL_MODE='audit'": "ok settings: STALEPOOL_MODE=audit",
    "STALEPOOL=1\nPATH=/bin:a b\nSTALEPOOLS=x": "ok settings: the defaults",
    "STALEPOOL=1\nSTALEPOOL_ENABLED=0": "warning settings: STALEPOOL_ENABLED is off",
    "STALEPOOL=1\nSTALEPOOL_REPLAY=off\nSTALEPOOL_SILENCE_S=9": "warning settings: replay=off: ",
    "STALEPOOL=yes": "warning start: STALEPOOL=yes does nothing",
    "STALEPOOL_MODE=audit": "warning start: nothing in it switches stalepool on",
    "PYTHONPATH=/a:/venv/lib/stalepool/inject": "ok start: by PYTHONPATH",
    "hello": "error file: {place}/file, line 1: it is not NAME=value",
    "STALEPOOL='1": "error file: {place}/file, line 1: No closing quotation",
    UNIT % 'Environment="STALEPOOL=1" \\\n STALEPOOL_MODE=x': "error settings: STALEPOOL_MODE='x'",
    UNIT % "User=nova\nExecStart=/bin/stalepool run /bin/x": "ok start: by stalepool run",
    UNIT % "EnvironmentFile={place}/more": "error settings: STALEPOOL_MODE='activ' is not accepted",
    UNIT % "EnvironmentFile=/no/such": "warning file: /no/such cannot be read: No such file",
    UNIT % "EnvironmentFile=-/no/such\nEnvironment=STALEPOOL=1": "ok start: STALEPOOL=1, where pip",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_of_settings(text, tmp_path, stalepool_here):
    (tmp_path / "more").write_text("STALEPOOL=1\nSTALEPOOL_MODE=activ\n")
    (tmp_path / "file").write_text(text.format(place=tmp_path))
    found = found_in(stalepool_here("doctor", "--json", "--env", tmp_path / "file"))
    assert "\n" + FILES[text].format(place=tmp_path) in found
    worse = finding.LEVELS[finding.LEVELS.index(FILES[text].partition(" ")[0]) + 1 :]
    assert not re.search("^(%s) " % "|".join(worse or ["-"]), found, re.MULTILINE)


@pytest.mark.parametrize("place", ["none", "binary"])
def test_a_file_that_cannot_be_read(place, tmp_path, stalepool_here):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    done = stalepool_here("doctor", "--env", tmp_path / place)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("error    file  %s: " % (tmp_path / place))


#: which this machine may not have
FACTS = {
    "python": "3.11.7",
    "implementation": "cpython",
    "system": "Linux",
    "kernel": "6.1",
    "versions": {"urllib3": "2.8.0", "wrapt": "2.5.2", "openssl": "OpenSSL 3.5"},
    "snapshot": {"patched": ["urllib3.connectionpool"], "unpatched": [], "fallbacks": {}},
    "settings": Settings(),
    "sysctls": {"tcp_retries2": 15},
    "pools": ["urllib3.connectionpool"],
    "on_disk": {"urllib3": "urllib3"},
    "hub": "",
    "hub_at_import": [""],
    "tools": [],
    "uwsgi": [],
    "without_timeout": [],
    "start": {"switch": None, "has_start_file": True, "writable_by_others": None},
}
ARMED = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 42}


@pytest.mark.parametrize(
    ("question", "known", "levels"),
    [
        ("python", {"implementation": "pypy"}, [ERROR]),
        ("python", {"system": "Darwin"}, [WARNING]),
        ("settings", {"settings": Settings(enabled=False)}, [WARNING]),
        ("settings", {"settings": Settings(keepalive="off", keepalive_count=3)}, [OK, WARNING]),
        ("urllib3", {"versions": {"urllib3": "1.25.11"}}, [WARNING]),
        ("urllib3", {"versions": {"urllib3": "3.0.0"}}, [WARNING]),
        ("urllib3", {"versions": {"urllib3": "1.26.20"}}, []),
        ("urllib3", {"import_error": "No module named 'urllib3'"}, [WARNING]),
        ("urllib3", {"on_disk": {"urllib3": "urllib3-future"}}, [WARNING]),
        ("copies", {"on_disk": {"urllib3_future": "x", "pip._vendor.urllib3": "pip"}},
         [OK, WARNING]),
        ("copies", {"pools": ["urllib3.connectionpool", "x.urllib3.connectionpool"]}, [WARNING]),
        ("patches", {"snapshot": {**FACTS["snapshot"], "fallbacks": {"check_failed": 1}}},
         [OK, WARNING]),
        ("patches", {"snapshot": {**FACTS["snapshot"], "patched": []}}, [ERROR]),
        ("tools", {"tools": ["New Relic"]}, [OK]),
        ("forks", {"uwsgi": ["master", "processes"]}, [WARNING]),
        ("forks", {"uwsgi": ["lazy-apps", "master"]}, []),
        ("forks", {"uwsgi": ["py-call-osafterfork"]}, []),
        ("keepalive", {"socket": ARMED}, [OK]),
        ("keepalive", {"socket": {**ARMED, "SO_KEEPALIVE": 0}}, [WARNING]),
        ("keepalive", {"socket_error": "AttributeError()"}, [WARNING]),
        ("keepalive", {"socket": {"SO_KEEPALIVE": 0}, "settings": Settings(keepalive="off")}, [OK]),
        ("kernel", {"sysctls": {"tcp_retries2": 5}}, [WARNING]),
        ("kernel", {"sysctls": {}}, [OK]),
        ("kernel", {"settings": Settings(silence_s="off")}, [WARNING]),
        ("start", {"start": {**FACTS["start"], "switch": "yes"}}, [WARNING, OK]),
        ("start", {"start": {**FACTS["start"], "switch": "1", "has_start_file": False}},
         [WARNING, OK]),
        ("start", {"start": {**FACTS["start"], "writable_by_others": ("/x", "belongs to deploy")}},
         [WARNING, OK]),
    ],
)  # fmt: skip
def test_judgement(question, known, levels):
    found = questions.ask_all({**FACTS, **known})
    assert [each.level for each in found if each.question == question] == levels
    assert all(bool(each.remedy) == (each.level != OK) for each in found)


def test_a_table_of_all_that_is_well_of_nothing_and_of_long_words():
    assert finding.worst(questions.ask_all(FACTS)) == OK
    assert finding.table([]) == "0 ok, 0 to look at, 0 wrong"
    text = finding.table([Finding("x", ERROR, "a" * 200 + " b", "c " * 100)])
    assert "a" * 200 in text and text.endswith("1 wrong")
    assert max(len(line) for line in text.splitlines() if "aa" not in line) <= 100
