"""``stalepool doctor``: findings about an environment, a program, a file of settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

import lanes
from conftest import REPOSITORY, child, child_that_stays
from service_process import is_running
from stalepool.cli.doctor import facts, finding, process, questions
from stalepool.cli.doctor.finding import ERROR, OK, WARNING, Finding
from stalepool.settings import Settings
from stalepool_testing.kernel import wait_until

Found = Dict[str, List[Tuple[str, str]]]


@pytest.fixture(autouse=True)
def pythonpath(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead the programs that are examined to this checkout, wherever they run."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


@pytest.fixture
def findings(stalepool_here: Any) -> Callable[..., Tuple[int, Found]]:
    """``stalepool doctor WORDS``: exit status, and level and text of what each question found."""

    def findings(*words: object) -> Tuple[int, Found]:
        done = stalepool_here("doctor", "--json", *words)
        return done.returncode, found_in(done)

    return findings


def found_in(done: subprocess.CompletedProcess[str]) -> Found:
    found: Found = {}
    for each in json.loads(done.stdout)["findings"]:
        assert bool(each["remedy"]) == (each["level"] != OK)
        found.setdefault(each["question"], []).append((each["level"], each["says"]))
    levels = [level for answers in found.values() for level, _ in answers]
    assert done.returncode == max(map(finding.LEVELS.index, levels))
    return found


def test_an_environment() -> None:
    # which has imported nothing yet
    done = child("-m", "stalepool", "doctor", "--json", env={"STALEPOOL_SILENCE_S": "20"})
    found = found_in(done)
    assert found["patches"] == [(OK, "patched: urllib3.connectionpool")]
    assert found["settings"] == [(OK, "silence_s=20.0")]
    ((level, says),) = found["keepalive"]
    assert level == OK and "SO_KEEPALIVE 1, TCP_KEEPIDLE 5, TCP_KEEPINTVL 1" in says
    ((_, says),) = found["versions"]
    assert "urllib3 " in says and "wrapt " in says and "stalepool " in says
    ((_, says),) = found["kernel"]
    assert "tcp_retries2 " in says


def test_a_wrong_setting_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STALEPOOL_MODE", "activ")
    ((level, says, _),) = questions.settings(facts.of_machine())
    assert level == ERROR and says.startswith("STALEPOOL_MODE='activ' is not accepted")


def test_a_library_that_only_has_the_name(tmp_path: Path) -> None:
    package = tmp_path / "urllib3"
    package.mkdir()
    (package / "__init__.py").write_text("from . import connectionpool; __version__ = '4.0'")
    (package / "connectionpool.py").write_text("class HTTPConnectionPool: pass")
    path = os.pathsep.join(map(str, (tmp_path, REPOSITORY)))
    done = child("-m", "stalepool", "doctor", "--json", env={"PYTHONPATH": path})
    found = found_in(done)
    assert done.returncode == 2
    assert found["urllib3"] == [(WARNING, "urllib3 4.0")]
    place = "not patched: urllib3.connectionpool.is_connection_dropped: not there"
    assert (ERROR, place) in found["patches"]
    assert [level for level, _ in found["keepalive"]] == [WARNING]


GREEN = "import eventlet; eventlet.monkey_patch(); import urllib3"
GREEN_LATE = "import urllib3, eventlet; eventlet.monkey_patch()"
GEVENT = "from gevent import monkey; monkey.patch_all(); import urllib3"
NO_URLLIB3 = "pass"
NO_WRAPT = "import sys; sys.modules['wrapt'] = None; import urllib3"


@pytest.mark.parametrize(
    ("needs", "program", "question", "level", "says"),
    lanes.first(
        4,
        [
            ("eventlet", GREEN_LATE, "order", WARNING, "eventlet's monkey_patch() came after "),
            ("gevent", GEVENT, "order", OK, "gevent's monkey_patch() came before urllib3"),
            (
                "wrapt",
                NO_URLLIB3,
                "urllib3",
                WARNING,
                "no urllib3: no watched process imported it",
            ),
            ("wrapt", NO_WRAPT, "patches", ERROR, "nothing is patched: wrapt is missing"),
            ("eventlet", GREEN, "order", OK, "eventlet's monkey_patch() came before urllib3"),
        ],
    ),
)
def test_a_program(
    needs: str, program: str, question: str, level: str, says: str, findings: Any
) -> None:
    if find_spec(needs) is None:
        pytest.skip("%s is not installed" % needs)
    _, found = findings("--", sys.executable, "-c", program)
    assert (level, says) in [(level, text[: len(says)]) for level, text in found[question]]


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
print("printed")
"""


@pytest.mark.skipif(find_spec("oslo_config") is None, reason="needs oslo.config, as in extra test")
def test_a_native_program(stalepool_here: Any) -> None:
    """Its output goes to stderr; one of its clients has no read timeout."""
    done = stalepool_here("doctor", "--json", "--", sys.executable, "-c", CLIENTS)
    found = found_in(done)
    assert found["order"] == [(OK, "native threads")]
    assert "patched: keystoneauth1.session, urllib3.connectionpool" in found["patches"][0][1]
    assert "copies" not in found  # requests.packages.urllib3 is no copy
    assert found["timeouts"] == [(WARNING, "no read timeout: [neutron] timeout")]
    assert "printed" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([sys.executable, "-I", "-c", "import urllib3"], "stalepool did not start in /"),
        (["no-such-program", "--json"], "no-such-program: No such file"),
    ],
    ids=["hides its PYTHONPATH", "not there"],
)
def test_a_program_that_cannot_be_asked(words: List[str], says: str, findings: Any) -> None:
    status, found = findings("--", *words)
    ((level, text),) = found.pop("command")
    assert (status, level, found) == (2, ERROR, {}) and text.startswith(says)


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


def test_a_services_worker_is_judged_and_all_that_it_has_started_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STILL_S", 1.5)
    monkeypatch.setattr(process, "_TO_END_S", 0.1)
    known = process.facts_of([sys.executable, "-c", SERVICE, str(tmp_path / "pids")])
    assert known["snapshot"]["patched"] == ["urllib3.connectionpool"]
    assert known["hub_at_import"] == [""]
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 3
    wait_until(lambda: not any(map(is_running, pids)), "end of the service")


@pytest.mark.parametrize(
    ("name", "status"), lanes.first(2, [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
)
def test_a_signal_ends_the_program_as_well(name: str, status: int) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    words = ["-m", "stalepool", "doctor", "--", sys.executable, "-c", program]
    with child_that_stays(*words) as started:
        assert started.stderr is not None
        pid = int(started.stderr.readline())
        started.send_signal(getattr(signal, name))
        out, errors = started.communicate(timeout=60)
    assert (started.returncode, out, errors) == (status, "", "")
    assert not Path("/proc", str(pid)).exists()


def test_a_signal_while_the_program_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started: List[Any] = []

    class Signalled(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Signalled)
    with pytest.raises(SystemExit) as ended:
        process.facts_of([sys.executable, "-c", "import time; time.sleep(600)"])
    assert (ended.value.code, started[0].returncode) == (143, -signal.SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_program_that_becomes_another_user() -> None:
    program = "import os, urllib3; os.chdir('/'); os.setuid(12345)"
    known = process.facts_of([sys.executable, "-c", program])
    assert known["snapshot"]["patched"] == ["urllib3.connectionpool"]


CLOSING = """
import os
os.closerange(3, 64)
reused = [open(os.devnull) for _ in range(3)]
written = open(%r, "wb", buffering=0)
while written.fileno() < 64:
    written = os.fdopen(os.dup(written.fileno()), "wb")
    reused.append(written)
import urllib3
"""


def test_a_program_that_closes_every_descriptor(tmp_path: Path) -> None:
    program = CLOSING % str(tmp_path / "file")
    assert process.facts_of([sys.executable, "-c", program]) == {}
    assert (tmp_path / "file").read_bytes() == b""


UNIT = """
    [Unit]
    Description=x
    [Service]
    %s
    ExecStart=%s
"""

FILES = {
    "on": ("STALEPOOL=1\n# a comment\n\nexport STALEPOOL_MODE='audit'", 0, OK,
           "STALEPOOL_MODE=audit"),
    "other names": ("STALEPOOL=1\nPATH=/bin:a b\nSTALEPOOLS=x", 0, OK, "the defaults"),
    "wrong": ("STALEPOOL=1\nSTALEPOOL_MODES=audit", 2, ERROR, "STALEPOOL_MODES='audit' is not a"),
    "off": ("STALEPOOL=1\nSTALEPOOL_ENABLED=0", 1, WARNING, "STALEPOOL_ENABLED is off"),
    "contradicting": ("STALEPOOL=1\nSTALEPOOL_REPLAY=off\nSTALEPOOL_SILENCE_S=9", 1, WARNING,
                      "replay=off: "),
    "another switch": ("STALEPOOL=yes", 1, WARNING, "STALEPOOL=yes does nothing"),
    "no switch": ("STALEPOOL_MODE=audit", 1, WARNING, "nothing in it switches stalepool on"),
    "the directory": ("PYTHONPATH=/a:/venv/lib/stalepool/inject", 0, OK, "by PYTHONPATH"),
    "no settings at all": ("hello", 2, ERROR, "line 1: it is not NAME=value"),
    "a quote": ("STALEPOOL='1", 2, ERROR, "line 1: No closing quotation"),
    "unit": (UNIT % ('Environment="STALEPOOL=1" STALEPOOL_MODE=audit', "/bin/x"), 0, OK,
             "STALEPOOL_MODE=audit"),
    "unit with run": (UNIT % ("User=nova", "/bin/stalepool run /bin/x"), 0, OK, "by stalepool run"),
    "unit with a file": (UNIT % ("EnvironmentFile=%s/more", "/bin/x"), 2, ERROR,
                         "STALEPOOL_MODE='activ' is not accepted"),
    "unit without a file": (UNIT % ("EnvironmentFile=/no/such", "/bin/x"), 1, WARNING,
                            "/no/such cannot be read: No such file"),
    "unit with a file that may be missing": (
        UNIT % ("EnvironmentFile=-/no/such\nEnvironment=STALEPOOL=1", "/bin/x"), 0, OK,
        "STALEPOOL=1, where pip",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_settings(case: str, tmp_path: Path, findings: Any) -> None:
    text, status, level, says = FILES[case]
    (tmp_path / "more").write_text("STALEPOOL=1\nSTALEPOOL_MODE=activ\n")
    file = tmp_path / "file"
    file.write_text(textwrap.dedent(text.replace("%s", str(tmp_path))))
    returned, found = findings("--env", file)
    answers = [answer for each in found.values() for answer in each]
    assert any(level == each and says in text for each, text in answers), answers
    assert returned == status


@pytest.mark.parametrize("place", ["none", ".", "binary"])
def test_a_file_that_cannot_be_read(place: str, tmp_path: Path, stalepool_here: Any) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    done = stalepool_here("doctor", "--env", tmp_path / place)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("error    file  %s: " % (tmp_path / place))


# -- judgement: facts that this machine does not have

FACTS: Dict[str, Any] = {
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
    "start": {"switch": None, "has_start_file": True, "in_other_hands": None},
}
ARMED = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 127}


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
        ("start", {"start": {**FACTS["start"], "in_other_hands": ("/x", "belongs to deploy")}},
         [WARNING, OK]),
    ],
)  # fmt: skip
def test_judgement(question: str, known: Dict[str, Any], levels: List[str]) -> None:
    found = questions.ask_all({**FACTS, **known})
    assert [each.level for each in found if each.question == question] == levels
    assert all(bool(each.remedy) == (each.level != OK) for each in found)


def test_a_table_of_all_that_is_well_of_nothing_and_of_long_words() -> None:
    assert finding.worst(questions.ask_all(FACTS)) == OK
    assert finding.table([]) == "0 ok, 0 to look at, 0 wrong"
    text = finding.table([Finding("x", ERROR, "a" * 200 + " b", "c " * 100)])
    assert "a" * 200 in text and text.endswith("1 wrong")
    assert max(len(line) for line in text.splitlines() if "aa" not in line) <= 100
