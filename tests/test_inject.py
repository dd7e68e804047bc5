"""Getting into a process: the three ways in, and the sitecustomize.py that must harm nobody."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import venv
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from conftest import REPOSITORY, clean_environ
from stalepool.cli.inject import INJECT_DIR
from stalepool.testing import FaultServer, RespondThenClose

STALEPOOL = [sys.executable, "-m", "stalepool"]

HERE = Path(__file__).resolve().parent


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"env": clean_environ(), "timeout": 60, **options}
    return subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        **options,
    )


def path_of(*directories: object) -> Dict[str, str]:
    """An environment whose PYTHONPATH is these directories."""
    return clean_environ(PYTHONPATH=os.pathsep.join(map(str, directories)))


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """Closes each connection after one answer, without a word."""
    with FaultServer(default=RespondThenClose(announced=False)) as server:
        yield server


# -- the three ways in: the same service, and a server that really closes

SERVICE = """
import sys
assert "stalepool" in sys.modules  # before the service has asked for it
sys.path.insert(0, %r)
from in_client import check
import eventlet
eventlet.monkey_patch()
import urllib3
check(urllib3.connectionpool)
print("covered")
""" % str(HERE)


@pytest.fixture
def service(tmp_path: Path) -> Path:
    path = tmp_path / "service.py"
    path.write_text(SERVICE)
    return path


def test_by_an_import_at_start_up(service: Path, server: FaultServer) -> None:
    service.write_text("import stalepool\n" + service.read_text())
    done = run(sys.executable, service, server.port)
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_by_sitecustomize(service: Path, server: FaultServer) -> None:
    directory = run(*STALEPOOL, "path").stdout.strip()
    assert sorted(os.listdir(directory)) in (
        ["sitecustomize.py"],
        ["__pycache__", "sitecustomize.py"],
    )
    environ = path_of(directory, REPOSITORY)
    done = run(sys.executable, service, server.port, env=environ)
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_by_stalepool_run(service: Path, server: FaultServer) -> None:
    done = run(*STALEPOOL, "run", sys.executable, service, server.port)
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_children_of_what_was_run_have_it_too(service: Path, server: FaultServer) -> None:
    parent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    done = run(*STALEPOOL, "run", sys.executable, "-c", parent, service, server.port)
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_from_a_test_suite(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "conftest.py").write_text("import stalepool\n")
    (tmp_path / "test_client.py").write_text(
        textwrap.dedent(
            """
            import urllib3
            import stalepool
            from stalepool.testing import CloseAfter, FaultServer, Respond

            def test_a_connection_that_was_closed_while_idle():
                with FaultServer([Respond(200), CloseAfter(0)]) as server:
                    with urllib3.PoolManager(retries=False) as http:
                        assert http.request("GET", server.url).status == 200
                        server.wait_ended()
                        assert http.request("GET", server.url).status == 200
                    assert len(server.journal.connections) == 2
                assert stalepool.snapshot()["totals"]["verdicts"] == {"closed": 1}
            """
        )
    )
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


# -- what sitecustomize.py hides runs as it would have run

HIDDEN: Dict[str, Dict[str, str]] = {
    "module": {"sitecustomize.py": "print('hidden', __name__, __file__, __package__)"},
    "package": {
        "sitecustomize/__init__.py": "from sitecustomize import one\nfrom . import two\n"
        "print('hidden', __name__, __file__, __path__, __package__)",
        "sitecustomize/one.py": "print('one')",
        "sitecustomize/two.py": "print('two')",
    },
    "package, which goes before a module": {
        "sitecustomize/__init__.py": "print('package')",
        "sitecustomize.py": "print('module')",
    },
    "raises": {"sitecustomize.py": "print('hidden')\n1 / 0"},
    "package that raises": {"sitecustomize/__init__.py": "print('hidden')\n1 / 0"},
    "fails to import": {"sitecustomize.py": "print('hidden')\nimport no_such_module"},
    "is no Python": {"sitecustomize.py": "print("},
    "exits": {"sitecustomize.py": "import sys\nsys.exit(3)"},
    "imports itself": {"sitecustomize.py": "import sitecustomize\nprint(sitecustomize.__file__)"},
    "replaces itself": {"sitecustomize.py": "import os, sys\nsys.modules[__name__] = os"},
}
NOT_HIDDEN: Dict[str, Dict[str, str]] = {
    "nothing": {"other.py": ""},
    "a directory that is no package": {"sitecustomize/readme.txt": ""},
}

SAY = "import sys; print(sys.modules.get('sitecustomize'))"
IS_ON = "import sys; print('stalepool' in sys.modules)"


def lay_out(directory: Path, files: Dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return directory


def outcome(*words: object, env: Dict[str, str], **options: Any) -> Any:
    """Exit status, output, and the last thing said on stderr."""
    done = run(*words, env=env, **options)
    return done.returncode, done.stdout, "".join(done.stderr.splitlines()[-1:])


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_is_hidden_runs_as_it_would_have(hidden: str, tmp_path: Path) -> None:
    directory = lay_out(tmp_path, HIDDEN[hidden])
    neither, without, with_it = (
        outcome(sys.executable, "-B", "-c", SAY, env=path_of(*places, REPOSITORY))
        for places in ([], [directory], [INJECT_DIR, directory])
    )
    assert with_it == without != neither


@pytest.mark.parametrize("hidden", NOT_HIDDEN)
def test_where_nothing_is_hidden_nothing_happens(hidden: str, tmp_path: Path) -> None:
    directory = lay_out(tmp_path, NOT_HIDDEN[hidden])
    found = outcome(sys.executable, "-c", IS_ON, env=path_of(INJECT_DIR, directory, REPOSITORY))
    assert found == (0, "True\n", "")


def test_a_failing_one_leaves_stalepool_on(tmp_path: Path) -> None:
    directory = lay_out(tmp_path, {"sitecustomize.py": "1 / 0"})
    done = run(sys.executable, "-c", IS_ON, env=path_of(INJECT_DIR, directory, REPOSITORY))
    assert done.stdout == "True\n"
    assert "division by zero" in done.stderr


# -- twice

# how newrelic and ddtrace chain: each looks for the next one behind its own directory
CHAINING = {
    "by a search of the rest of the path": """
        import os, sys
        from importlib.machinery import PathFinder
        from importlib.util import module_from_spec
        print("first")
        here = os.path.dirname(__file__)
        spec = PathFinder.find_spec("sitecustomize", [p for p in sys.path if p != here])
        if spec is not None:
            spec.loader.exec_module(module_from_spec(spec))
    """,
    "by an import once more": """
        import os, sys
        print("first")
        here = os.path.dirname(__file__)
        sys.path.remove(here)
        ours = sys.modules.pop("sitecustomize")
        try:
            import sitecustomize
        except ImportError:
            sys.modules["sitecustomize"] = ours
        finally:
            sys.path.insert(0, here)
    """,
}


@pytest.mark.parametrize("ours_comes", ["first", "last"])
@pytest.mark.parametrize("chaining", CHAINING)
def test_tools_that_chain_as_well_run_once_each(
    chaining: str, ours_comes: str, tmp_path: Path
) -> None:
    first = lay_out(tmp_path / "a", {"sitecustomize.py": textwrap.dedent(CHAINING[chaining])})
    second = lay_out(tmp_path / "b", {"sitecustomize.py": "print('second')"})
    tools = [INJECT_DIR, first] if ours_comes == "first" else [first, INJECT_DIR]
    found = outcome(sys.executable, "-c", IS_ON, env=path_of(*tools, second, REPOSITORY))
    assert found == (0, "first\nsecond\nTrue\n", "")


def test_the_directory_many_times_on_the_path(tmp_path: Path) -> None:
    link, copy = tmp_path / "link", tmp_path / "copy"
    link.symlink_to(INJECT_DIR)
    shutil.copytree(str(INJECT_DIR), str(copy))  # that of another installation
    hidden = lay_out(tmp_path / "hidden", {"sitecustomize.py": "print('hidden')"})
    places = [INJECT_DIR, copy, INJECT_DIR, link, hidden, copy, link, REPOSITORY]
    found = outcome(sys.executable, "-c", IS_ON, env=path_of(*places))
    assert found == (0, "hidden\nTrue\n", "")


def test_the_file_run_once_more(tmp_path: Path) -> None:
    hidden = lay_out(tmp_path, {"sitecustomize.py": "print('hidden')"})
    script = (
        "import runpy, sys; before = sys.modules['sitecustomize']; runpy.run_path(%r); "
        "print(sys.modules['sitecustomize'] is before); "
        "from stalepool import hook; print(len([f for f in sys.meta_path "
        "if type(f).__module__ == hook.__name__]))" % str(INJECT_DIR / "sitecustomize.py")
    )
    environ = path_of(INJECT_DIR, hidden, REPOSITORY)
    found = outcome(sys.executable, "-c", script, env=environ)
    assert found == (0, "hidden\nTrue\n1\n", "")


@pytest.mark.parametrize("version", ["", "2.7"])
def test_a_working_directory_that_is_gone(version: str, tmp_path: Path) -> None:
    python = old_python(version) if version else sys.executable
    hidden = lay_out(tmp_path / "hidden", {"sitecustomize.py": "print('hidden')"})
    gone = tmp_path / "gone"

    def look(*places: object) -> Any:
        gone.mkdir()
        start = ["/bin/sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", python, "-c", "print('on')"]
        return outcome(*start, env=path_of(*places), cwd=str(gone))

    # Python 3.11 and later do not start there, if PYTHONPATH has something relative in it
    assert look("elsewhere", INJECT_DIR, "", hidden) == look("elsewhere", "", hidden)


# -- a Python that cannot have stalepool: older, or one where it is not installed


def old_python(version: str) -> str:
    """A Python of this version that runs, from PATH or from pyenv; skips without one."""
    pyenv = os.path.expanduser("~/.pyenv/versions/%s*/bin/python" % version)
    for candidate in [shutil.which("python" + version), *glob.glob(pyenv)]:
        if candidate is not None and run(candidate, "-c", "").returncode == 0:
            return candidate
    pytest.skip("no Python %s on this machine" % version)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """This Python's version with nothing installed."""
    directory = tmp_path_factory.mktemp("bare")
    venv.create(str(directory), symlinks=True)
    return str(directory / "bin" / "python")


CHAINED = {
    "module": {"sitecustomize.py": "print('hidden')"},
    "package": {
        "sitecustomize/__init__.py": "from sitecustomize import one\nprint('hidden')",
        "sitecustomize/one.py": "",
    },
}


@pytest.mark.parametrize("form", CHAINED)
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_an_older_python_is_left_alone(version: str, form: str, tmp_path: Path) -> None:
    hidden = lay_out(tmp_path, CHAINED[form])
    # the repository is on the path: stalepool could be found, and is not for this Python
    environ = path_of(INJECT_DIR, INJECT_DIR, hidden, REPOSITORY)
    found = outcome(old_python(version), "-B", "-Werror", "-c", IS_ON, env=environ)
    assert found == (0, "hidden\nFalse\n", "")


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_an_older_python_reports_a_failing_one(version: str, tmp_path: Path) -> None:
    hidden = lay_out(tmp_path, {"sitecustomize.py": "1 / 0"})
    without, with_it = (
        outcome(old_python(version), "-B", "-c", "print('on')", env=path_of(*places))
        for places in ([hidden], [INJECT_DIR, hidden])
    )
    assert with_it == without
    assert without[1] == "on\n" and without[2]


@pytest.mark.parametrize("form", CHAINED)
def test_a_python_without_stalepool_is_left_alone(
    form: str, bare_python: str, tmp_path: Path
) -> None:
    hidden = lay_out(tmp_path, CHAINED[form])
    environ = path_of(INJECT_DIR, hidden)
    found = outcome(bare_python, "-Werror", "-c", IS_ON, env=environ)
    assert found == (0, "hidden\nFalse\n", "")


def test_a_python_with_a_broken_stalepool_is_left_alone(tmp_path: Path) -> None:
    broken = lay_out(tmp_path, {"stalepool/__init__.py": "1 / 0"})
    found = outcome(sys.executable, "-c", "print('on')", env=path_of(INJECT_DIR, broken))
    assert found == (0, "on\n", "")


def test_a_python_without_wrapt_says_so_and_works(bare_python: str) -> None:
    script = (
        "import sys, types; m = sys.modules['urllib3'] = types.ModuleType('urllib3'); "
        "import stalepool; stalepool.install(); print('on')"
    )
    done = run(bare_python, "-c", script, env=path_of(INJECT_DIR, REPOSITORY))
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert len(done.stderr.splitlines()) == 1 and "wrapt" in done.stderr


# -- stalepool run


def test_run_becomes_the_command() -> None:
    with subprocess.Popen(
        [*STALEPOOL, "run", "/bin/sh", "-c", "echo $$; exit 7"],
        env=clean_environ(),
        stdout=subprocess.PIPE,
        universal_newlines=True,
    ) as process:
        out, _ = process.communicate(timeout=60)
    assert int(out) == process.pid
    assert process.returncode == 7


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGINT", "SIGPIPE"])
def test_run_passes_signals_through(name: str) -> None:
    number = getattr(signal, name)
    done = run(*STALEPOOL, "run", "/bin/sh", "-c", "kill -%d $$" % number)
    assert done.returncode == -number


WORDS = ["--help", "--", "-x", "", "a b", "--version", "'\"", "\u00fc", "--"]


@pytest.mark.parametrize("before", [[], ["--"]])
def test_run_leaves_arguments_untouched(before: List[str]) -> None:
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    done = run(*STALEPOOL, "run", *before, sys.executable, "-c", show, *WORDS)
    assert json.loads(done.stdout) == WORDS, done.stderr


def test_run_changes_nothing_in_the_environment_but_pythonpath() -> None:
    environ = clean_environ(
        STALEPOOL_MODE="audit",
        PYTHONPATH=os.pathsep.join(["", str(REPOSITORY), str(INJECT_DIR), "", "relative", ""]),
    )
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    plain = json.loads(run(sys.executable, "-c", show, env=environ).stdout)
    done = run(*STALEPOOL, "run", sys.executable, "-c", show, env=environ)
    found = json.loads(done.stdout)
    assert found.pop("PYTHONPATH").split(os.pathsep) == [
        str(INJECT_DIR),
        str(REPOSITORY),
        "relative",
    ]
    del plain["PYTHONPATH"]
    assert found == plain
    assert os.path.isabs(str(INJECT_DIR))


def test_run_without_a_pythonpath(tmp_path: Path) -> None:
    environ = clean_environ()
    del environ["PYTHONPATH"]
    show = "import os; print(os.environ['PYTHONPATH'])"
    done = run(*STALEPOOL, "run", sys.executable, "-c", show, env=environ, cwd=str(REPOSITORY))
    assert done.stdout == "%s\n" % INJECT_DIR


def test_run_cannot_execute(tmp_path: Path) -> None:
    lay_out(tmp_path, {"text": "echo no", "script": "no shebang", "bin/text": "echo no"})
    (tmp_path / "script").chmod(0o755)
    (tmp_path / "text").chmod(0o644)
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"], str(tmp_path / "text")])
    for command, status in {
        str(tmp_path / "text"): 126,
        str(tmp_path / "script"): 126,
        str(tmp_path): 126,
        "text": 126,
        str(tmp_path / "nothing"): 127,
        "no-such-command": 127,
    }.items():
        done = run(*STALEPOOL, "run", command, env=clean_environ(PATH=path))
        assert (done.returncode, done.stdout) == (status, ""), command
        assert done.stderr.startswith("stalepool run: " + command + ": ")
        assert len(done.stderr.splitlines()) == 1


def test_run_starts_nothing_under_a_wrong_setting(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for wrong in {"STALEPOOL_MODE": "activ"}, {"STALEPOOL_MODES": "audit"}:
        done = run(*STALEPOOL, "run", "touch", proof, env=clean_environ(**wrong))
        assert done.returncode == 2
        (line,) = [s for s in done.stderr.splitlines() if s.startswith("stalepool run: ")]
        assert all(word in line for word in (*wrong, *wrong.values(), "active or audit"))
        assert not proof.exists()
    done = run(
        *[*STALEPOOL, "run", "touch", proof],
        env=clean_environ(STALEPOOL_MODE="activ", STALEPOOL_ENABLED="0"),
    )
    assert (done.returncode, done.stderr) == (0, "")  # the kill switch goes before
    assert proof.exists()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another copy of the package, whose permissions may be changed."""
    directory = tmp_path_factory.mktemp("installation")
    shutil.copytree(
        str(REPOSITORY / "stalepool"),
        str(directory / "lib" / "stalepool"),
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    cache = directory / "lib" / "stalepool" / "inject" / "__pycache__"
    lay_out(cache, {"sitecustomize.pyc": ""})
    return directory / "lib"


@pytest.mark.parametrize(
    ("place", "mode", "is_refused"),
    [
        ("stalepool", 0o755, False),
        ("stalepool", 0o775, False),
        ("stalepool/inject/sitecustomize.py", 0o646, True),
        ("stalepool/inject/__pycache__/sitecustomize.pyc", 0o666, True),
        ("stalepool/inject", 0o757, True),
        ("stalepool/inject", 0o1777, True),
        ("stalepool", 0o777, True),
        (".", 0o777, True),
        (".", 0o1777, False),
    ],
)
def test_run_refuses_a_directory_others_may_write_to(
    place: str, mode: int, is_refused: bool, installation: Path
) -> None:
    changed = installation / place
    before = changed.stat().st_mode
    changed.chmod(mode)
    try:
        environ = clean_environ(PYTHONPATH=str(installation), PYTHONDONTWRITEBYTECODE="1")
        done = run(*STALEPOOL, "run", "echo", "started", env=environ, cwd=str(installation))
    finally:
        changed.chmod(before)
    assert (done.returncode, done.stdout) == ((2, "") if is_refused else (0, "started\n"))
    assert ("%s may be written to" % changed.resolve() in done.stderr) == is_refused
