"""``stalepool status`` about a service that runs as another user: what root, it, and others see."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest

from conftest import child
from service_process import SERVICE, Started
from stalepool.cli.status import proc
from stalepool_testing import FaultServer

pytestmark = [
    pytest.mark.skipif(not proc.has_proc(), reason="there is no /proc here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be another user"),
]

#: users that nobody else has: not the services that another worker of xdist runs at the moment
ITS_USER, ANOTHER = (base + os.getpid() % 7000 for base in (50000, 57000))

BECOME = """
import ctypes, os
os.setgroups([]), os.setgid({user}), os.setuid({user})
ctypes.CDLL(None).prctl(4, {is_open}, 0, 0, 0)  # PR_SET_DUMPABLE: 1 is as after an exec
"""

#: what is imported later might lie where that user may not read
STATUS = "import locale, sys\nfrom stalepool.cli.main import main\n%s\nsys.exit(main(sys.argv[1:]))"


@contextlib.contextmanager
def service(is_open: bool = True) -> Iterator[Tuple[Started, Dict[str, str]]]:
    """It begins as root, as uWSGI and Apache do, and has been answered once by then.

    :param is_open: its user may look into it, as after an exec.
    :returns: it, and the setting of its directory, which is open to all as /dev/shm is.
    """
    become = BECOME.format(user=ITS_USER, is_open=int(is_open))
    script = SERVICE + "ask()" + become + "from stalepool import status; status._make_due(); ask()"
    with tempfile.TemporaryDirectory() as directory, FaultServer() as server:
        os.chmod(directory, 0o1777)
        at = {"STALEPOOL_STATUS_DIR": directory}
        with Started(script, server.port, **at) as started:
            yield started, at


@pytest.fixture(scope="module")
def running() -> Iterator[Tuple[Started, Dict[str, str]]]:
    with service() as found:
        yield found


def asked_as(user: int, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    script = STATUS % BECOME.format(user=user, is_open=1)
    return child("-c", script, "status", *words, env=variables)


def test_its_file_is_its_own(running: Any) -> None:
    started, at = running
    directory = Path(at["STALEPOOL_STATUS_DIR"], "stalepool-%d" % ITS_USER)
    (file,) = directory.iterdir()
    assert [path.stat().st_uid for path in (directory, file)] == [ITS_USER] * 2
    assert file.name.startswith("%d-" % started.pid)


def test_root_sees_it_and_whose_it_is(running: Any, stalepool_here: Any) -> None:
    started, _ = running
    asked, everybody = stalepool_here("status", started.pid), stalepool_here("status")
    for done in (asked, everybody):
        assert "(pid %d, user %d): saved 0 requests" % (started.pid, ITS_USER) in done.stdout
        assert done.stderr == ""


def test_its_own_user_sees_it(running: Any) -> None:
    """Another one, which he may not look into, by its file alone."""
    with service(is_open=False) as (closed, at):
        done = asked_as(ITS_USER, **at)
    assert done.returncode == 0, done.stderr
    for started in (running[0], closed):
        assert "python -c (pid %d, user %d): saved" % (started.pid, ITS_USER) in done.stdout


def test_another_user_is_told_who_may_ask(running: Any) -> None:
    started, at = running
    asked, everybody = asked_as(ANOTHER, str(started.pid), **at), asked_as(ANOTHER, **at)
    words = "(pid %d, user %d): cannot be asked: only root and %d may\n"
    assert words % (started.pid, ITS_USER, ITS_USER) in asked.stdout
    assert "No process of yours (root may ask those of others) runs with" in everybody.stdout
    assert [done.returncode for done in (asked, everybody)] == [1, 1]
    assert asked.stderr == everybody.stderr == ""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here: see util-linux")
def test_a_containers_root_sees_its_file_and_is_told_what_it_lacks(running: Any) -> None:
    started, at = running

    def ask(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        without = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
        command = [*without, sys.executable, "-m", "stalepool", "status"]
        return child(*command, *words, env=variables)

    everybody, unseen = ask(**at), ask(str(started.pid))
    for done in (everybody, unseen):
        assert done.stderr.startswith("stalepool status: this root has no CAP_SYS_PTRACE")
        assert done.stderr.count("\n") == 1
    assert "(pid %d, user %d): saved 0 requests" % (started.pid, ITS_USER) in everybody.stdout
    assert "cannot be asked: only root and %d may" % ITS_USER in unseen.stdout
