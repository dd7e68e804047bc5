"""Getting into a process: the three ways in, and the sitecustomize.py that must harm nobody."""

from __future__ import annotations

import glob
import grp
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import venv
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from conftest import REPOSITORY, clean_environ
from service import SERVICE
from stalepool.cli import owners
from stalepool.cli.inject import INJECT_DIR

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


def install(lib: Path) -> Path:
    """Put a copy of the package into a directory, in the hands of whoever runs the tests.

    The repository may be in other hands, and ``stalepool run`` minds: a container often runs as
    root what is mounted into it from somebody's home.
    """
    package = lib / "stalepool"
    shutil.copytree(
        str(REPOSITORY / "stalepool"),
        str(package),
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    lay_out(package / "inject" / "__pycache__", {"sitecustomize.pyc": ""})
    for path in [lib, *lib.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o022)
    return lib


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("installation") / "lib")


def at(lib: Path, **variables: str) -> Dict[str, Any]:
    """What has a command find this installation; "-m" looks in the working directory first."""
    environ = {"PYTHONPATH": str(lib), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return {"env": clean_environ(**environ), "cwd": str(lib)}


# -- the three ways in: the same service, and a server that really closes


@pytest.fixture
def service(tmp_path: Path) -> Path:
    path = tmp_path / "service.py"
    path.write_text(SERVICE)
    return path


def test_by_an_import_at_start_up(service: Path, port: int) -> None:
    service.write_text("import stalepool\n" + service.read_text())
    done = run(sys.executable, service, port)
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_by_sitecustomize(service: Path, port: int) -> None:
    directory = run(*STALEPOOL, "path").stdout.strip()
    assert sorted(os.listdir(directory)) in (
        ["sitecustomize.py"],
        ["__pycache__", "sitecustomize.py"],
    )
    environ = path_of(directory, REPOSITORY)
    done = run(sys.executable, service, port, env=environ)
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_by_stalepool_run(service: Path, port: int, installation: Path) -> None:
    words = [sys.executable, service, port]
    done = run(*STALEPOOL, "run", *words, **at(installation))
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_children_of_what_was_run_have_it_too(service: Path, port: int, installation: Path) -> None:
    parent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    words = [sys.executable, "-c", parent, service, port]
    done = run(*STALEPOOL, "run", *words, **at(installation))
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_from_a_test_suite(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "conftest.py").write_text("import stalepool\n")
    (tmp_path / "test_client.py").write_text(
        textwrap.dedent(
            """
            import urllib3
            import stalepool
            from stalepool_testing import CloseAfter, FaultServer, Respond

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
    # a second one is on the path, as Debian's in /usr/lib: it hides behind the first, always
    hidden = lay_out(tmp_path / "first", {"sitecustomize.py": "print('hidden')"})
    never = lay_out(tmp_path / "second", {"sitecustomize.py": "print('never')"})
    script = (
        "import runpy, sys; before = sys.modules['sitecustomize']; runpy.run_path(%r); "
        "print(sys.modules['sitecustomize'] is before); "
        "from stalepool.patching import import_hook as hook; print(len([f for f in sys.meta_path "
        "if type(f).__module__ == hook.__name__]))" % str(INJECT_DIR / "sitecustomize.py")
    )
    environ = path_of(INJECT_DIR, hidden, never, REPOSITORY)
    found = outcome(sys.executable, "-c", script, env=environ)
    assert found == (0, "hidden\nTrue\n1\n", "")


@pytest.mark.parametrize("version", ["", "2.7"])
def test_a_working_directory_that_is_gone(version: str, tmp_path: Path) -> None:
    python = old_python(version) if version else sys.executable
    hidden = lay_out(tmp_path / "hidden", {"sitecustomize.py": "print('hidden')"})
    gone = tmp_path / "gone"

    def look(*places: object) -> Any:
        gone.mkdir()
        start = ["/bin/sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", python, "-Bc", "print('on')"]
        status, output, last = outcome(*start, env=path_of(*places), cwd=str(gone))
        return status, output, re.sub("0x[0-9a-f]+", "", last)  # Python 3.15 names the thread

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


@pytest.mark.each_value
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
        "import sys, types; name = 'urllib3.connectionpool'; "
        "sys.modules[name] = types.ModuleType(name); "
        "import stalepool; stalepool.install(); print('on')"
    )
    done = run(bare_python, "-c", script, env=path_of(INJECT_DIR, REPOSITORY))
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert len(done.stderr.splitlines()) == 1 and "wrapt" in done.stderr


# -- stalepool run


def test_run_becomes_the_command(installation: Path) -> None:
    with subprocess.Popen(
        [*STALEPOOL, "run", "/bin/sh", "-c", "echo $$; exit 7"],
        **at(installation),
        stdout=subprocess.PIPE,
        universal_newlines=True,
    ) as process:
        out, _ = process.communicate(timeout=60)
    assert int(out) == process.pid
    assert process.returncode == 7


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGINT", "SIGPIPE"])
def test_run_passes_signals_through(name: str, installation: Path) -> None:
    number = getattr(signal, name)
    done = run(*STALEPOOL, "run", "/bin/sh", "-c", "kill -%d $$" % number, **at(installation))
    assert done.returncode == -number


WORDS = ["--help", "--", "-x", "", "a b", "--version", "'\"", "\u00fc", "--"]


@pytest.mark.parametrize("before", [[], ["--"]])
def test_run_leaves_arguments_untouched(before: List[str], installation: Path) -> None:
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    words = [*before, sys.executable, "-c", show, *WORDS]
    done = run(*STALEPOOL, "run", *words, **at(installation))
    assert json.loads(done.stdout) == WORDS, done.stderr


def test_run_changes_nothing_in_the_environment_but_pythonpath(installation: Path) -> None:
    inject = str(installation / "stalepool" / "inject")
    before = ["", str(installation), inject, "", "relative", ""]
    place = at(installation, STALEPOOL_MODE="audit", PYTHONPATH=os.pathsep.join(before))
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    plain = json.loads(run(sys.executable, "-c", show, **place).stdout)
    done = run(*STALEPOOL, "run", sys.executable, "-c", show, **place)
    found = json.loads(done.stdout)
    rest = ["", str(installation), "", "relative", ""]
    assert found.pop("PYTHONPATH").split(os.pathsep) == [inject, *rest]
    del plain["PYTHONPATH"]
    assert found == plain
    assert os.path.isabs(inject)


def test_run_without_a_pythonpath(installation: Path) -> None:
    place = at(installation)
    del place["env"]["PYTHONPATH"]
    show = "import os; print(os.environ['PYTHONPATH'])"
    done = run(*STALEPOOL, "run", sys.executable, "-c", show, **place)
    assert done.stdout == "%s\n" % (installation / "stalepool" / "inject")


def test_run_cannot_execute(tmp_path: Path, installation: Path) -> None:
    lay_out(
        tmp_path,
        {
            "text": "echo no",
            "script": "no shebang",
            "bin/text": "echo no",
            "bin/directory/file": "",
            "locked/command": "",
        },
    )
    (tmp_path / "script").chmod(0o755)
    (tmp_path / "text").chmod(0o644)
    (tmp_path / "locked").chmod(0)  # only root may look into it
    places = [tmp_path / "bin", tmp_path / "locked", os.environ["PATH"], tmp_path / "text"]
    place = at(installation, PATH=os.pathsep.join(map(str, places)))
    found = {
        command: run(*STALEPOOL, "run", command, **place)
        for command in [
            *(str(tmp_path / "text"), str(tmp_path / "script"), str(tmp_path), "text"),
            *(str(tmp_path / "nothing"), "no-such-command", "directory"),
        ]
    }
    (tmp_path / "locked").chmod(0o755)
    assert {
        command: (done.returncode, done.stdout, done.stderr) for command, done in found.items()
    } == {
        command: (status, "", "stalepool run: %s: %s\n" % (command, why))
        for command, status, why in [
            (str(tmp_path / "text"), 126, "cannot execute: Permission denied"),
            (str(tmp_path / "script"), 126, "cannot execute: Exec format error"),
            (str(tmp_path), 126, "cannot execute: Permission denied"),
            ("text", 126, "cannot execute: Permission denied"),
            (str(tmp_path / "nothing"), 127, "command not found"),
            ("no-such-command", 127, "command not found"),
            ("directory", 127, "command not found"),
        ]
    }


@pytest.fixture
def console_script(tmp_path: Path) -> List[str]:
    """The command as pip installs it."""
    path = tmp_path / "bin" / "stalepool"
    lay_out(path.parent, {path.name: "import sys, stalepool.cli.main as m; sys.exit(m.main())"})
    return [sys.executable, str(path)]


@pytest.mark.parametrize("how", ["console script", "-m", "-mX"])
def test_run_starts_nothing_under_a_wrong_setting(
    how: str, console_script: List[str], installation: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    joined = [sys.executable, "-mstalepool"]
    command = {"console script": console_script, "-m": STALEPOOL, "-mX": joined}[how]
    for wrong in {"STALEPOOL_MODE": "activ"}, {"STALEPOOL_MODES": "audit"}:
        done = run(*command, "run", "touch", proof, **at(installation, **wrong))
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("stalepool run: ")
        assert all(word in line for word in (*wrong, *wrong.values(), "active or audit"))
        assert not proof.exists()
    off = at(installation, STALEPOOL_MODE="activ", STALEPOOL_ENABLED="0")
    done = run(*command, "run", "touch", proof, **off)
    assert (done.returncode, done.stderr) == (0, "")  # the kill switch goes before
    assert proof.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "import stalepool", "-m", "stalepool"],
        ["-m", "service", "-m", "stalepool"],
        ["service.py", "-m", "stalepool"],
    ],
    ids=" ".join,
)
def test_a_service_says_that_it_goes_without(words: List[str], tmp_path: Path) -> None:
    lay_out(tmp_path, {"service.py": "import stalepool"})
    environ = clean_environ(STALEPOOL_MODE="activ")
    done = run(sys.executable, *words, env=environ, cwd=str(tmp_path))
    (line,) = done.stderr.splitlines()
    assert line.startswith("stalepool: not active in this process: STALEPOOL_MODE='activ'")


def _without_its_sitecustomize(tmp_path: Path) -> str:
    lib = install(tmp_path / "lib")
    shutil.rmtree(str(lib / "stalepool" / "inject"))
    return str(lib)


def _in_an_archive(tmp_path: Path) -> str:
    install(tmp_path / "lib")
    return shutil.make_archive(str(tmp_path / "archive"), "zip", str(tmp_path / "lib"))


def _under_a_name_that_pythonpath_splits(tmp_path: Path) -> str:
    install(tmp_path / "a:b")
    (tmp_path / "link").symlink_to("a:b")
    return str(tmp_path / "link")


@pytest.mark.each_value
@pytest.mark.parametrize("command", [["run", "echo", "started"], ["path"]], ids=" ".join)
@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (_without_its_sitecustomize, "has no sitecustomize.py"),
        (_in_an_archive, "has no sitecustomize.py"),
        (_under_a_name_that_pythonpath_splits, "has a ':' in its path"),
    ],
)
def test_an_installation_that_cannot_be_injected(
    broken: Callable[[Path], str], why: str, command: List[str], tmp_path: Path
) -> None:
    place = {"env": clean_environ(PYTHONPATH=broken(tmp_path)), "cwd": str(tmp_path)}
    done = run(*STALEPOOL, *command, **place)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("stalepool %s: " % command[0]) and why in line


@pytest.mark.parametrize(
    ("place", "mode", "is_refused"),
    [
        ("stalepool", 0o755, False),
        ("stalepool/inject/sitecustomize.py", 0o646, True),
        ("stalepool/inject/__pycache__/sitecustomize.pyc", 0o666, True),
        ("stalepool/inject", 0o757, True),
        ("stalepool/inject", 0o1777, True),
        ("stalepool/patching/import_hook.py", 0o646, True),
        ("stalepool/cli", 0o757, True),
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
        done = run(*STALEPOOL, "run", "echo", "started", **at(installation))
    finally:
        changed.chmod(before)
    assert (done.returncode, done.stdout) == ((2, "") if is_refused else (0, "started\n"))
    assert ("%s may be written to by everybody" % changed.resolve() in done.stderr) == is_refused


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("place", ["stalepool/patching/import_hook.py", "stalepool/inject", "."])
def test_run_refuses_what_another_user_owns(place: str, installation: Path) -> None:
    given = installation / place
    os.chown(str(given), 12345, -1)
    try:
        done = run(*STALEPOOL, "run", "echo", "started", **at(installation))
    finally:
        os.chown(str(given), 0, -1)
    assert (done.returncode, done.stdout) == (2, "")
    assert "stalepool run: %s belongs to 12345," % given.resolve() in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_run_takes_what_a_trusted_user_owns(tmp_path: Path) -> None:
    lib = install(tmp_path.resolve() / "lib")
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in [lib, *lib.rglob("*")]:
        os.chown(str(path), nobody, 12345)
    cli = lib / "stalepool" / "cli"
    cli.chmod(0o775)

    def started(*words: str) -> Any:
        done = run(*STALEPOOL, "run", *words, "echo", "started", **at(lib))
        return done.returncode, done.stdout, done.stderr.partition(", who could")[0]

    assert started() == (2, "", "stalepool run: %s belongs to nobody" % cli.parent)
    of_a_group = "stalepool run: %s may be written to by the group 12345" % cli
    assert started("--trust", "nobody") == (2, "", of_a_group)
    cli.chmod(0o755)
    assert started("--trust", "daemon", "--trust", "nobody") == (0, "started\n", "")
    assert started("--trust", str(nobody)) == (0, "started\n", "")


def test_run_trusts_nobody_it_does_not_know(installation: Path) -> None:
    done = run(*STALEPOOL, "run", "--trust", "no-such-user", "echo", "x", **at(installation))
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument --trust: this machine has no user 'no-such-user'" in done.stderr


# -- the Python of CMD


def a_script(directory: Path, name: str, first_line: str) -> Path:
    script = lay_out(directory, {name: first_line + "\nprint('started')"}) / name
    script.chmod(0o755)
    return script


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """A directory with a ``python3`` that finds nothing of what is installed in this one."""
    (tmp_path / "a b").mkdir()
    wrapper = tmp_path / "a b" / "python3"
    wrapper.write_text('#!/bin/sh\nunset PYTHONPATH\nexec %s -S "$@"\n' % sys.executable)
    wrapper.chmod(0o755)
    return wrapper.parent


FIRST_LINES = {
    "a path": ("#!%(link)s", True),
    "its options": ("#!%(own)s -I", True),
    "env": ("#!/usr/bin/env python3", True),
    "env -S": ("#!/usr/bin/env -S python3 -s", True),
    "pip's for long paths": ("#!/bin/sh\n'''exec' \"%(python)s\" \"$0\" \"$@\"\n' '''", True),
    "one that has it": ("#!%(own)s", False),
}


@pytest.mark.parametrize("first_line", FIRST_LINES)
def test_run_warns_where_the_python_of_a_script_has_no_stalepool(
    first_line: str, pythons: Path, tmp_path: Path, installation: Path
) -> None:
    text, is_without = FIRST_LINES[first_line]
    link = tmp_path / "python3"
    link.symlink_to(pythons / "python3")  # a first line takes no space
    named = {"link": link, "python": pythons / "python3", "own": sys.executable}
    script = a_script(tmp_path, "it", text % named)
    path = os.pathsep.join([str(pythons), os.environ["PATH"]])
    done = run(*STALEPOOL, "run", script, "-x", **at(installation, PATH=path))
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    expected = "stalepool run: %s starts without stalepool: " % script if is_without else ""
    assert done.stderr.startswith(expected)
    assert len(done.stderr.splitlines()) == is_without


@pytest.mark.parametrize(
    ("options", "is_without"), [([], False), (["-I"], True), (["-E"], True), (["-s", "-B"], False)]
)
def test_run_warns_where_a_python_has_no_stalepool(
    options: List[str], is_without: bool, installation: Path
) -> None:
    words = [sys.executable, *options, "-c", "print('started')", "-I"]
    done = run(*STALEPOOL, "run", *words, **at(installation))
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert ("starts without stalepool" in done.stderr) == is_without


@pytest.mark.parametrize("broken", ["#!", "#!%s/none", "#!/bin/sh\n'''exec' \""])
def test_run_says_nothing_of_a_script_that_names_no_python(
    broken: str, tmp_path: Path, installation: Path
) -> None:
    script = a_script(tmp_path, "it", broken.replace("%s", str(tmp_path)))
    done = run(*STALEPOOL, "run", script, **at(installation))
    assert "starts without stalepool" not in done.stderr
    assert "Traceback" not in done.stderr


def test_run_minds_nothing_that_vanishes_or_leads_nowhere(installation: Path) -> None:
    link = installation / "stalepool" / "cli" / "link"
    link.symlink_to("nowhere")
    try:
        done = run(*STALEPOOL, "run", "echo", "started", **at(installation))
    finally:
        link.unlink()
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr


# -- whose files they are: root, nova, and mallory, who is nobody's friend

ROOT, NOVA, MALLORY, DEPLOY = 0, 1001, 1002, 1003
STAFF, USERS, TEAM, LDAP, PRIVATE, DEPLOYERS, UNKNOWN = 50, 100, 200, 300, 1001, 1003, 65000

GROUPS = {
    **{group: [] for group in (ROOT, STAFF, USERS, PRIVATE, DEPLOYERS)},
    TEAM: ["root", "mallory"],
    LDAP: ["eve"],
}
PRIMARY = {
    "root": (ROOT, ROOT),
    "nova": (NOVA, PRIVATE),
    "mallory": (MALLORY, USERS),
    "deploy": (DEPLOY, DEPLOYERS),
}


@pytest.fixture
def as_nova(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def users() -> List[Any]:
        return [pwd.struct_passwd((n, "x", u, g, "", "/", "")) for n, (u, g) in PRIMARY.items()]

    def user(number: int) -> Any:
        return {user.pw_uid: user for user in users()}[number]

    def group(number: int) -> Any:
        return grp.struct_group(("name", "x", number, GROUPS[number]))  # KeyError as there

    monkeypatch.setattr(owners.pwd, "getpwall", users)
    monkeypatch.setattr(owners.pwd, "getpwuid", user)
    monkeypatch.setattr(owners.grp, "getgrgid", group)
    monkeypatch.setattr(owners.os, "geteuid", lambda: NOVA)
    owners._is_private.cache_clear()
    yield
    owners._is_private.cache_clear()


@pytest.mark.parametrize(
    ("mode", "user", "group", "is_parent", "is_refused"),
    [
        (0o755, ROOT, ROOT, False, False),
        (0o755, NOVA, USERS, False, False),
        (0o755, MALLORY, USERS, False, True),
        (0o555, MALLORY, USERS, True, True),  # who owns it may give himself the permission
        (0o1777, MALLORY, USERS, True, True),  # ... and is bound by no sticky bit
        (0o757, ROOT, ROOT, False, True),
        (0o777, ROOT, ROOT, True, True),
        (0o1777, ROOT, ROOT, True, False),
        (0o1777, ROOT, ROOT, False, True),
        (0o775, ROOT, ROOT, False, False),
        (0o664, NOVA, PRIVATE, False, False),  # the umask 002 of private groups
        (0o2775, ROOT, STAFF, True, False),  # /usr/local of some distributions
        (0o775, NOVA, USERS, False, True),  # somebody's primary group
        (0o775, NOVA, TEAM, False, True),
        (0o775, NOVA, LDAP, False, True),  # a member whom nobody lists
        (0o775, NOVA, UNKNOWN, False, True),
        (0o1775, NOVA, TEAM, True, False),
        (0o755, DEPLOY, DEPLOYERS, False, False),  # who is trusted
        (0o775, DEPLOY, DEPLOYERS, False, False),
        (0o777, DEPLOY, DEPLOYERS, False, True),
        (0o775, DEPLOY, TEAM, False, True),
    ],
)
@pytest.mark.usefixtures("as_nova")
def test_in_whose_hands_it_is(
    mode: int, user: int, group: int, is_parent: bool, is_refused: bool
) -> None:
    status = os.stat_result((mode, 1, 1, 1, user, group, 0, 0, 0, 0))
    assert bool(owners.other_hands(status, [DEPLOY], is_parent)) is is_refused
