"""Getting into a process by ``stalepool run``, and the sitecustomize.py that must harm nobody."""

from __future__ import annotations

import functools
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
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

import lanes
from conftest import REPOSITORY, clean_environ
from service import SERVICE
from stalepool.cli import inject, interpreter, owners

STALEPOOL = [sys.executable, "-m", "stalepool"]

INJECT_DIR = inject.INJECT_DIR


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
    package, compiled = lib / "stalepool", shutil.ignore_patterns("__pycache__")
    shutil.copytree(str(REPOSITORY / "stalepool"), str(package), ignore=compiled)
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


@pytest.fixture
def run_here(
    installation: Path, monkeypatch: pytest.MonkeyPatch, stalepool_here: Any
) -> Iterator[Callable[..., Tuple[Any, str]]]:
    """``stalepool run WORDS`` of an installation, in this process: exit status, and stderr."""

    def run_here(*words: object, lib: Path = installation) -> Tuple[Any, str]:
        package = lib.resolve() / "stalepool"
        monkeypatch.setattr(inject, "PACKAGE_DIR", package)
        monkeypatch.setattr(inject, "INJECT_DIR", package / "inject")
        done = stalepool_here("run", *words)
        assert done.stdout == ""
        return done.returncode, done.stderr

    monkeypatch.setenv("PYTHONPATH", str(installation))
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    yield run_here
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> List[Tuple[List[str], Dict[str, str]]]:
    """The command lines this process would have become, each with its environment."""
    found = []

    def become(file: str, words: List[str], environ: Dict[str, str]) -> None:
        found.append((words, environ))
        sys.exit(0)

    monkeypatch.setattr(os, "execvpe", become)
    return found


# -- a service, and a server that really closes


def test_what_was_run_and_its_children_have_it(
    port: int, installation: Path, tmp_path: Path
) -> None:
    service = lay_out(tmp_path, {"service.py": SERVICE}) / "service.py"
    parent = (
        "import subprocess, sys; assert 'stalepool' in sys.modules; "
        "sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    )
    words = [sys.executable, "-c", parent, service, port]
    done = run(*STALEPOOL, "run", *words, **at(installation))
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


def test_the_path_is_what_run_puts_on_pythonpath(stalepool_here: Any) -> None:
    directory = stalepool_here("path").stdout.rstrip("\n")
    for before in {}, {"PYTHONPATH": ""}:
        assert inject.injected(before) == {"PYTHONPATH": directory}
    assert set(os.listdir(directory)) - {"__pycache__"} == {"sitecustomize.py"}


# -- what sitecustomize.py hides runs as it would have run

HIDDEN: Dict[str, Dict[str, str]] = {
    "module": {"sitecustomize.py": "print('hidden', __name__, __file__, __package__)"},
    "package": {
        "sitecustomize/__init__.py": "from sitecustomize import one\nfrom . import two\n"
        "print('hidden', __name__, __file__, __path__, __package__)",
        "sitecustomize/one.py": "print('one')",
        "sitecustomize/two.py": "print('two')",
        "sitecustomize.py": "print('the package goes first')",
    },
    "raises": {"sitecustomize.py": "print('hidden')\n1 / 0"},
    "fails to import": {"sitecustomize.py": "print('hidden')\nimport no_such_module"},
    "exits": {"sitecustomize.py": "import sys\nsys.exit(3)"},
    "imports itself": {"sitecustomize.py": "import sitecustomize\nprint(sitecustomize.__file__)"},
    "replaces itself": {"sitecustomize.py": "import os, sys\nsys.modules[__name__] = os"},
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


def say(*directories: object) -> Any:
    return outcome(sys.executable, "-B", "-c", SAY, env=path_of(*directories, REPOSITORY))


@pytest.fixture(scope="module")
def neither() -> Any:
    """What Python says with nothing hidden, and without stalepool."""
    return say()


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_is_hidden_runs_as_it_would_have(hidden: str, neither: Any, tmp_path: Path) -> None:
    directory = lay_out(tmp_path, HIDDEN[hidden])
    assert say(INJECT_DIR, directory) == say(directory) != neither


def test_where_nothing_is_hidden_nothing_happens(tmp_path: Path) -> None:
    nothing = lay_out(tmp_path / "nothing", {"other.py": ""})
    no_package = lay_out(tmp_path / "no package", {"sitecustomize/readme.txt": ""})
    environ = path_of(INJECT_DIR, nothing, no_package, REPOSITORY)
    assert outcome(sys.executable, "-c", IS_ON, env=environ) == (0, "True\n", "")


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


@pytest.mark.parametrize("version", lanes.first(1, ["", "2.7"]))
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


@functools.lru_cache(maxsize=None)
def old_python(version: str) -> str:
    """A Python of this version that runs, from pyenv or from PATH; skips without one."""
    pyenv = os.path.expanduser("~/.pyenv/versions/%s*/bin/python" % version)
    for candidate in [*glob.glob(pyenv), shutil.which("python" + version)]:
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


@pytest.mark.parametrize(
    ("version", "form"),
    lanes.first(2, [("2.7", "package"), ("3.6", "package"), ("2.7", "module"), ("3.7", "package")]),
)
def test_an_older_python_is_left_alone(version: str, form: str, tmp_path: Path) -> None:
    hidden = lay_out(tmp_path, CHAINED[form])
    # the repository is on the path: stalepool could be found, and is not for this Python
    environ = path_of(INJECT_DIR, INJECT_DIR, hidden, REPOSITORY)
    found = outcome(old_python(version), "-B", "-Werror", "-c", IS_ON, env=environ)
    assert found == (0, "hidden\nFalse\n", "")


@pytest.mark.parametrize("version", lanes.first(1, ["2.7", "3.6"]))
def test_an_older_python_reports_a_failing_one(version: str, tmp_path: Path) -> None:
    hidden = lay_out(tmp_path, {"sitecustomize.py": "1 / 0"})
    without, with_it = (
        outcome(old_python(version), "-B", "-c", "print('on')", env=path_of(*places))
        for places in ([hidden], [INJECT_DIR, hidden])
    )
    assert with_it == without
    assert without[1] == "on\n" and without[2]


def test_a_python_without_stalepool_is_left_alone(bare_python: str, tmp_path: Path) -> None:
    hidden = lay_out(tmp_path, CHAINED["module"])
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


WORDS = ["--help", "--", "-x", "", "a b", "--version", "'\"", "\u00fc", "--"]


def test_run_becomes_the_command_with_its_arguments_untouched(installation: Path) -> None:
    show = "import json, os, sys; print(json.dumps([os.getpid(), *sys.argv[1:]])); sys.exit(7)"
    with subprocess.Popen(
        [*STALEPOOL, "run", sys.executable, "-c", show, *WORDS],
        **at(installation),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        out, _ = process.communicate(timeout=60)
    assert json.loads(out) == [process.pid, *WORDS]
    assert process.returncode == 7


def test_run_changes_nothing_but_pythonpath_and_signals(
    run_here: Any, became: Any, installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(installation / "stalepool" / "inject")
    before, after = ["", str(installation)], ["", "relative", ""]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*before, directory, *after]))
    monkeypatch.setenv("STALEPOOL_MODE", "audit")
    assert run_here("--", "echo", *WORDS) == (0, "")
    ((words, environ),) = became
    assert words == ["echo", *WORDS]
    path = os.pathsep.join([directory, *before, *after])
    assert environ == {**os.environ, "PYTHONPATH": path}
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        assert signal.getsignal(number) == signal.SIG_DFL


def test_run_cannot_execute(run_here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, {"text": "echo no", "script": "no shebang", "bin/text": "echo no"})
    lay_out(tmp_path, {"bin/directory/file": "", "locked/command": ""})
    (tmp_path / "script").chmod(0o755)
    (tmp_path / "text").chmod(0o644)
    (tmp_path / "locked").chmod(0)  # only root may look into it
    places = [tmp_path / "bin", tmp_path / "locked", os.environ["PATH"], tmp_path / "text"]
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, places)))
    commands = [
        (str(tmp_path / "text"), 126, "cannot execute: Permission denied"),
        (str(tmp_path / "script"), 126, "cannot execute: Exec format error"),
        (str(tmp_path), 126, "cannot execute: Permission denied"),
        ("text", 126, "cannot execute: Permission denied"),
        (str(tmp_path / "nothing"), 127, "command not found"),
        ("no-such-command", 127, "command not found"),
        ("directory", 127, "command not found"),
    ]
    found = [run_here(command) for command, _, _ in commands]
    (tmp_path / "locked").chmod(0o755)
    assert found == [
        (status, "stalepool run: %s: %s\n" % (command, why)) for command, status, why in commands
    ]


@pytest.mark.parametrize(
    "words", [["{}/stalepool"], ["-m", "stalepool"], ["-mstalepool"]], ids=" ".join
)
def test_run_starts_nothing_under_a_wrong_setting(
    words: List[str], installation: Path, tmp_path: Path
) -> None:
    # the command as pip installs it
    lay_out(tmp_path, {"stalepool": "import sys, stalepool.cli.main as m; sys.exit(m.main())"})
    command = [sys.executable, *(word.format(tmp_path) for word in words), "run"]
    done = run(*command, "echo", "started", **at(installation, STALEPOOL_MODE="activ"))
    assert (done.returncode, done.stdout) == (2, "")
    *earlier, line = done.stderr.splitlines()
    assert line.startswith("stalepool run: STALEPOOL_MODE='activ' is not accepted")
    # before Python 3.10 it is not known at start-up which module is run
    assert len(earlier) == (sys.version_info < (3, 10) and words[0].startswith("-m"))


def test_the_kill_switch_goes_before_a_wrong_setting(
    run_here: Any, became: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STALEPOOL_MODE", "activ")
    monkeypatch.setenv("STALEPOOL_ENABLED", "0")
    assert run_here("echo") == (0, "") and became


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


def test_run_needs_its_directory(tmp_path: Path, run_here: Any, became: Any) -> None:
    why = "%s/stalepool/inject has no sitecustomize.py: install stalepool anew, and unpacked"
    assert run_here("echo", lib=tmp_path) == (1, "stalepool run: %s\n" % why % tmp_path.resolve())
    assert became == []


def _in_an_archive(tmp_path: Path) -> str:
    install(tmp_path / "lib")
    return shutil.make_archive(str(tmp_path / "archive"), "zip", str(tmp_path / "lib"))


def _under_a_name_that_pythonpath_splits(tmp_path: Path) -> str:
    install(tmp_path / "a:b")
    (tmp_path / "link").symlink_to("a:b")
    return str(tmp_path / "link")


@pytest.mark.parametrize(
    ("broken", "why", "command"),
    [
        pytest.param(
            *(_in_an_archive, "has no sitecustomize.py", ["run", "echo", "started"]),
            marks=pytest.mark.full,
        ),
        (_under_a_name_that_pythonpath_splits, "has a ':' in its path", ["path"]),
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
        ("stalepool/inject/__pycache__/sitecustomize.pyc", 0o666, True),
        ("stalepool/inject", 0o1777, True),
        ("stalepool/cli", 0o757, True),
        (".", 0o777, True),
        (".", 0o1777, False),
    ],
)
def test_run_refuses_a_directory_others_may_write_to(
    place: str, mode: int, is_refused: bool, installation: Path, run_here: Any, became: Any
) -> None:
    changed = installation / place
    before = changed.stat().st_mode
    changed.chmod(mode)
    try:
        status, err = run_here("echo")
    finally:
        changed.chmod(before)
    assert (status, bool(became)) == ((2, False) if is_refused else (0, True))
    assert ("%s may be written to by everybody" % changed.resolve() in err) == is_refused


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("place", ["stalepool/patching/import_hook.py", "."])
def test_run_refuses_what_another_user_owns(
    place: str, installation: Path, run_here: Any, became: Any
) -> None:
    given = installation / place
    os.chown(str(given), 12345, -1)
    try:
        status, err = run_here("echo")
    finally:
        os.chown(str(given), 0, -1)
    assert (status, became) == (2, [])
    assert "stalepool run: %s belongs to 12345," % given.resolve() in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_run_takes_what_a_trusted_user_owns(tmp_path: Path, run_here: Any, became: Any) -> None:
    lib = install(tmp_path.resolve() / "lib")
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in [lib, *lib.rglob("*")]:
        os.chown(str(path), nobody, 12345)
    cli = lib / "stalepool" / "cli"
    cli.chmod(0o775)

    def started(*words: str) -> Any:
        status, err = run_here(*words, "echo", lib=lib)
        return status, err.partition(", who could")[0]

    assert started() == (2, "stalepool run: %s belongs to nobody" % cli.parent)
    of_a_group = "stalepool run: %s may be written to by the group 12345" % cli
    assert started("--trust", "nobody") == (2, of_a_group)
    assert became == []
    cli.chmod(0o755)
    assert started("--trust", "daemon", "--trust", "nobody") == (0, "")
    assert started("--trust", str(nobody)) == (0, "")


def test_run_trusts_nobody_it_does_not_know(run_here: Any) -> None:
    status, err = run_here("--trust", "no-such-user", "echo")
    assert status == 2
    assert "argument --trust: this machine has no user 'no-such-user'" in err


# -- the Python of CMD


def a_script(directory: Path, name: str, first_line: str) -> Path:
    script = lay_out(directory, {name: first_line + "\nprint('started')"}) / name
    script.chmod(0o755)
    return script


#: the first line of a script -> the Python that it starts, with its options
FIRST_LINES: Dict[str, List[str]] = {
    "#!{place}/python3 -I": ["{place}/python3", "-I"],
    "#!/usr/bin/env python3": ["{place}/python3"],
    "#!/usr/bin/env -S python3 -s": ["{place}/python3", "-s"],
    # pip's for long paths
    "#!/bin/sh\n'''exec' \"{place}/a b/python3\" \"$0\" \"$@\"\n' '''": ["{place}/a b/python3"],
    "#!": [],
    "#!{place}/none": [],
    "#!/bin/sh\n'''exec' \"": [],
}


@pytest.mark.parametrize("first_line", FIRST_LINES)
def test_the_python_of_a_script(
    first_line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in (tmp_path, tmp_path / "a b"):
        a_script(directory, "python3", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    script = a_script(tmp_path, "it", first_line.format(place=tmp_path))
    expected = [word.format(place=tmp_path) for word in FIRST_LINES[first_line]]
    assert interpreter.python_of([str(script), "-x"]) == expected


def test_run_warns_where_the_python_of_a_script_has_no_stalepool(
    tmp_path: Path, run_here: Any, became: Any
) -> None:
    script = a_script(tmp_path, "it", "#!%s -I" % sys.executable)
    status, err = run_here(script, "-x")
    assert status == 0 and became
    assert err.startswith("stalepool run: %s starts without stalepool: " % script)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("options", "is_without"), [(["-E"], True), (["-s", "-B"], False)])
def test_run_warns_where_a_python_has_no_stalepool(
    options: List[str], is_without: bool, run_here: Any, became: Any
) -> None:
    status, err = run_here(sys.executable, *options, "-c", "print('started')", "-I")
    assert status == 0 and became
    assert ("starts without stalepool" in err) == is_without


def test_run_minds_nothing_that_vanishes_or_leads_nowhere(
    installation: Path, run_here: Any, became: Any
) -> None:
    link = installation / "stalepool" / "cli" / "link"
    link.symlink_to("nowhere")
    try:
        assert run_here("echo") == (0, "") and became
    finally:
        link.unlink()


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
