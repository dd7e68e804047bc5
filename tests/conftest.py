"""What all tests share: options, and clients that run in a process of their own."""

import contextlib
import inspect
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

import lanes
from breaks import breaks
from errors import links
from logs import Records
from worlds import WITH_TESTS, beside

REPOSITORY = Path(__file__).resolve().parent.parent

# the tests are about stalepool's defaults, whatever this machine's operator has exported
for _name in [name for name in os.environ if name.startswith("STALEPOOL_")]:
    del os.environ[_name]


# as nova and neutron have it; and dnspython takes half a second of each child that is green
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="every combination, and what stock does")
    parser.addoption("--slow", action="store_true", help="run also what takes long")
    parser.addoption("--soak", type=int, default=20_000, help="how many requests the soak makes")
    what = "skip, not fail, what imports PACKAGE, which the platform does not have"
    parser.addoption("--without", metavar="PACKAGE", action="append", default=[], help=what)
    for name in "haproxy", "black-hole":
        what = "fail, not skip, where this machine has no %s, or permits none" % name
        parser.addoption("--require-" + name, action="store_true", help=what)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Two workers on each processor: many a test waits."""
    return 2 * (os.cpu_count() or 1)


def pytest_make_parametrize_id(val):
    """Put the words of a dict, list or tuple into the id: a failure then says which row it was."""
    if isinstance(val, (dict, list, tuple)):
        return re.sub(r"[][(){}'\"]| at 0x\w+", "", repr(val))[:60]
    return None


def pytest_collection_modifyitems(config, items):
    lanes.choose(config, items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """A state that this machine cannot make is no fault of the test's."""
    import stalepool  # noqa: F401  # on in every test, of the environment that is clean by now
    from stalepool_testing import Unavailable

    try:
        yield
    except Exception as error:
        met = links(error)  # it may have been wrapped on the way
        reasons = [str(cause) for cause in met if isinstance(cause, Unavailable)]
        said = "\n".join(map(str, met))  # a child's traceback included, of whichever thread of it
        reasons += re.findall(r"(?m)^\s*stalepool_testing\.kernel\.Unavailable: (.*)", said)
        for package in item.config.getoption("--without"):
            if re.search("No (module named '|package metadata was found for )" + package, said):
                pytest.skip("needs %s, which this platform does not have" % package)
        if not reasons or item.config.getoption("--require-black-hole"):
            raise
        pytest.skip(reasons[0])


pytest_runtest_call = pytest_runtest_setup


@pytest.fixture(scope="session", autouse=True)
def has_no_gil_to_the_end():
    """On a free-threaded Python, nothing that the tests import switches the GIL on again."""
    yield
    assert not (sysconfig.get_config_var("Py_GIL_DISABLED") and sys._is_gil_enabled())


def child(*words, **options):
    """Run a command without STALEPOOL_*, with the repository importable, and keep what it says.

    :param words: if the first one is an option, they are for this Python.
    :param options: those of :func:`subprocess.run`; ``env`` is added to the environment.
    """
    return subprocess.run(**of_a_child(words, **{"timeout": 100, **options}))


def child_that_stays(*words, **options):
    """Start the same, and wait for nothing."""
    return subprocess.Popen(**of_a_child(words, **options))


def of_a_child(words, env=None, **options):
    """What :class:`subprocess.Popen` takes."""
    python = [sys.executable] if str(words[0]).startswith("-") else []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    clean = {name: v for name, v in os.environ.items() if not name.startswith("STALEPOOL_")}
    environ = {**clean, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    return {"args": [*python, *map(str, words)], "env": environ, **pipes, **options}


@pytest.fixture
def run_python():
    """Runs a script in a fresh interpreter, and returns what it printed last, as JSON.

    Warnings are errors there, too, and a traceback fails the test; so does whatever else it says
    on stderr, unless it ``complains``. It imports what tests import, and is green from its first
    line on if ``world`` is eventlet or gevent. The other options are those of :func:`child`.
    """

    def run(script, *args, world="threads", env=None, flags=(), complains=False, **options):
        green = "" if world == "threads" else "from worlds import enter; enter(%r)\n" % world
        words = ["-Werror", "-Wignore::DeprecationWarning", *flags, "-c"]
        script = green + textwrap.dedent(script)
        done = child(*words, script, *args, env={**WITH_TESTS, **(env or {})}, **options)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert complains or done.stderr == ""
        last = done.stdout.strip().splitlines()[-1:]
        return json.loads(last[0]) if last else None

    return run


@pytest.fixture
def call_python(run_python):
    """Calls a function of a test file in a fresh interpreter, and returns what it returned there.

    Arguments and result are plain data, as JSON has it; an argument may be a function of a test
    file, too. The options are those of :func:`run_python`.
    """

    def call(function, *args, env=None, **options):
        files = {inspect.getfile(each) for each in (function, *args) if callable(each)}
        names = ", ".join(Path(file).stem for file in files)
        called = "%s(%s)" % (spelt(function), ", ".join(map(spelt, args)))
        script = "import json, %s; print(json.dumps(%s))" % (names, called)
        return run_python(script, env={**beside(*files), **(env or {})}, **options)

    return call


def spelt(thing):
    """The words of a script for it."""
    if callable(thing):
        return "%s.%s" % (Path(inspect.getfile(thing)).stem, thing.__name__)
    return repr(thing)


@pytest.fixture(scope="module")
def port():
    """The port of a server that closes each connection after one answer, without a word."""
    from stalepool_testing import FaultServer, RespondThenClose

    with FaultServer(default=RespondThenClose(announced=False)) as server:
        yield server.port


@pytest.fixture
def run_order(run_python, port):
    """Runs a script that has the names of in_client.py, and imports the rest in its own order."""

    def run(script, *args, **options):
        prelude = "import json, sys; from in_client import *\n"
        return run_python(prelude + textwrap.dedent(script), port, *args, **options)

    return run


@pytest.fixture
def place(tmp_path):
    """Where the status files of this user lie, if ``tmp_path`` is ``status_dir``."""
    return tmp_path / ("stalepool-%d" % os.geteuid())


@pytest.fixture
def at(tmp_path):
    """The variable by which they lie there."""
    return {"STALEPOOL_STATUS_DIR": str(tmp_path)}


@pytest.fixture
def haproxy_binary(request):
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        if request.config.getoption("--require-haproxy"):
            pytest.fail("haproxy is required, and there is none")
        pytest.skip("no haproxy on this machine")
    return found


@pytest.fixture
def small_reads(monkeypatch):
    """http.client reads 8 KiB at a time, as it does before Python 3.14, and leaves the rest."""
    monkeypatch.setattr(io, "DEFAULT_BUFFER_SIZE", 8192)


@pytest.fixture
def listen(caplog, request):
    """Listens to the logger ``stalepool``: keeps the records, and does something at each."""
    from stalepool import fallback

    def listen(act=lambda record: None, level=logging.DEBUG):
        heard, logger = Records(act), logging.getLogger("stalepool")
        caplog.set_level(level, logger.name)
        logger.addHandler(heard)
        request.addfinalizer(lambda: logger.removeHandler(heard))
        return heard

    fallback.forget()
    yield listen
    fallback.forget()


@pytest.fixture
def pretend_fork():
    """Puts this process into the place of a forked child, for one test."""
    from stalepool import runtime

    with contextlib.ExitStack() as stack:

        def fork():
            stack.enter_context(breaks("number of forks", by=runtime.fork_generation + 1))
            # by descriptors, which the tests after this one have again
            stack.enter_context(breaks("sockets that were opened", by={}))

        yield fork


@pytest.fixture
def alarm():
    """Sets the exception that a signal handler raises in some seconds."""

    def set_to(error, seconds=0.2):
        def handler(*_):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise error

        signal.signal(signal.SIGALRM, handler)
        # until it is met: one that comes just before a wait is lost on it
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)

    before = signal.getsignal(signal.SIGALRM)
    yield set_to
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
