"""``stalepool status`` about a service that runs as another user: what root, it, and others see."""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

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

#: becomes another user; what is imported later might lie where that one may not read
BECOME = """
import ctypes, locale, os, sys
from stalepool.cli.main import main
os.setgroups([]), os.setgid({user}), os.setuid({user})
ctypes.CDLL(None).prctl(4, {is_open}, 0, 0, 0)  # PR_SET_DUMPABLE: 1 is as after an exec
"""


@contextlib.contextmanager
def service(is_open=True):
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
def running():
    with service() as found:
        yield found


def asked_as(user, at, *words):
    script = BECOME.format(user=user, is_open=1) + "sys.exit(main(sys.argv[1:]))"
    return child("-c", script, "status", *words, env=at)


def test_root_sees_it_and_whose_it_is(running, stalepool_here):
    """Its file is its own."""
    started, at = running
    directory = Path(at["STALEPOOL_STATUS_DIR"], "stalepool-%d" % ITS_USER)
    (file,) = directory.iterdir()
    assert [path.stat().st_uid for path in (directory, file)] == [ITS_USER] * 2
    for words in [started.pid], []:
        done = stalepool_here("status", *words)
        assert "(pid %d, user %d): saved 0 requests" % (started.pid, ITS_USER) in done.stdout
        assert done.stderr == ""


def test_its_own_user_sees_it(running):
    """Another one, which he may not look into, by its file alone."""
    with service(is_open=False) as (closed, at):
        done = asked_as(ITS_USER, at)
    assert done.returncode == 0, done.stderr
    for started in (running[0], closed):
        assert "python -c (pid %d, user %d): saved" % (started.pid, ITS_USER) in done.stdout


def test_another_user_is_told_who_may_ask(running):
    started, at = running
    words = "(pid %d, user %d): cannot be asked: only root and %d may\n"
    nobody = "No process of yours (root may ask those of others) runs with"
    whose = words % (started.pid, ITS_USER, ITS_USER)
    for asked, said in ([started.pid], whose), ([], nobody):
        done = asked_as(ANOTHER, at, *asked)
        assert (done.returncode, done.stderr) == (1, "") and said in done.stdout


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here: see util-linux")
def test_a_containers_root_sees_its_file_and_is_told_what_it_lacks(running):
    started, at = running
    without = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", sys.executable]
    seen = "(pid %d, user %d): saved 0 requests" % (started.pid, ITS_USER)
    unseen = "cannot be asked: only root and %d may" % ITS_USER
    roots = "(pid 1, user root): cannot be asked: only root with CAP_SYS_PTRACE may"
    rows = ([], at, seen), ([started.pid], {}, unseen), ([1], {}, roots)
    for asked, environ, said in rows:
        done = child(*without, "-m", "stalepool", "status", *asked, env=environ)
        assert done.stderr.startswith("stalepool status: this root has no CAP_SYS_PTRACE")
        assert done.stderr.count("\n") == 1 and said in done.stdout
