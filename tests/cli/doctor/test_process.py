"""A program that the doctor starts: it is watched, and ended with all that it has started."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import child_that_stays
from stalepool.cli.doctor import process
from stalepool_testing.kernel import wait_until

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


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_services_worker_is_judged_and_all_that_it_has_started_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "STILL_S", 1.5)
    monkeypatch.setattr(process, "_TO_END_S", 0.1)
    monkeypatch.setattr(process, "LOOKS", 10**9)  # or the test fails by timeout
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
    started, popen = [], subprocess.Popen

    def signalled(*args, **options):
        started.append(popen(*args, **options))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", signalled)
    with pytest.raises(SystemExit, match="143"):
        process.facts_of([sys.executable, "-c", "import time; time.sleep(600)"])
    assert started[0].returncode == -signal.SIGTERM


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


def test_of_the_reports_the_last_one_of_the_busiest_process_counts():
    """The last line is cut off, where the program was ended."""
    rows = (1, 5, []), (2, 7, ["a"]), (2, 9, ["a", "b"]), (2, 8, ["a"]), (1, 6, [])
    reports = [dict(zip(("pid", "modules", "pools"), row)) for row in rows]
    text = "\n".join(map(repr, [*reports, "{'pid"]))[:-1]
    assert process._furthest(io.BytesIO(text.encode())) == reports[2]
