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
import sys
import venv
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import pytest

import lanes
from conftest import REPOSITORY, child
from service import SERVICE
from stalepool.cli import inject, interpreter, owners

STALEPOOL = [sys.executable, "-m", "stalepool"]

INJECT_DIR = inject.INJECT_DIR


def path_of(*directories: object) -> Dict[str, str]:
    """The variable that makes these directories the PYTHONPATH."""
    return {"PYTHONPATH": os.pathsep.join(map(str, directories))}


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
    (package / "cli" / "link").symlink_to("nowhere")  # nobody minds
    return lib


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("installation") / "lib")


def at(lib: Path, **variables: str) -> Dict[str, Any]:
    """What has a command find this installation; "-m" looks in the working directory first."""
    environ = {**path_of(lib), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return {"env": environ, "cwd": lib}


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


def test_what_was_run_and_its_children_have_it(
    port: int, installation: Path, tmp_path: Path
) -> None:
    service = lay_out(tmp_path, {"service.py": SERVICE}) / "service.py"
    parent = (
        "import subprocess, sys; assert 'stalepool' in sys.modules; "
        "sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    )
    words = [sys.executable, "-c", parent, service, port]
    done = child(*STALEPOOL, "run", *words, **at(installation))
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
    done = child(*words, env=env, **options)
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


#: a directory -> the files in it
DIRECTORIES: Dict[str, Dict[str, str]] = {
    "nothing": {"other.py": ""},
    "no package": {"sitecustomize/readme.txt": ""},
    "hidden": {"sitecustomize.py": "print('hidden')"},
    "package": {
        "sitecustomize/__init__.py": "from sitecustomize import one\nprint('hidden')",
        "sitecustomize/one.py": "",
    },
    "failing": {"sitecustomize.py": "1 / 0"},
    "broken": {"stalepool/__init__.py": "1 / 0"},
    # how newrelic and ddtrace chain: each looks for the next one behind its own directory
    "searching": {
        "sitecustomize.py": """
import os, sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
print("first")
here = os.path.dirname(__file__)
spec = PathFinder.find_spec("sitecustomize", [p for p in sys.path if p != here])
if spec is not None:
    spec.loader.exec_module(module_from_spec(spec))
"""
    },
    "importing": {
        "sitecustomize.py": """
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
"""
    },
}


@pytest.fixture
def directories(tmp_path: Path) -> Dict[str, Path]:
    """Those above; ours, by a link as well, and that of another installation; the repository."""
    found = {name: lay_out(tmp_path / name, files) for name, files in DIRECTORIES.items()}
    (tmp_path / "link").symlink_to(INJECT_DIR)
    shutil.copytree(str(INJECT_DIR), str(tmp_path / "copy"))
    others = {name: tmp_path / name for name in ("link", "copy")}
    return {**found, **others, "ours": INJECT_DIR, "repository": REPOSITORY}


@functools.lru_cache(maxsize=None)
def old_python(version: str) -> str:
    """A Python of this version that runs, from pyenv or from PATH; skips without one."""
    pyenv = os.path.expanduser("~/.pyenv/versions/%s*/bin/python" % version)
    for candidate in [*glob.glob(pyenv), shutil.which("python" + version)]:
        if candidate is not None and child(candidate, "-c", "").returncode == 0:
            return candidate
    pytest.skip("no Python %s on this machine" % version)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """This Python's version with nothing installed."""
    directory = tmp_path_factory.mktemp("bare")
    venv.create(str(directory), symlinks=True)
    return str(directory / "bin" / "python")


class Start(NamedTuple):
    """What a Python prints that has these directories on its path, and says last on stderr."""

    path: str
    printed: str
    last: str = ""
    python: str = ""  # a version, or "bare"; otherwise this one


STARTS = {
    "nothing hidden": Start("ours, nothing, no package, repository", "True"),
    "a failing one": Start(
        "ours, failing, repository", "True", "ZeroDivisionError: division by zero"
    ),
    # each of two tools that chain as well runs once
    "before a tool that searches": Start(
        "ours, searching, hidden, repository", "first hidden True"
    ),
    "behind a tool that searches": Start(
        "searching, ours, hidden, repository", "first hidden True"
    ),
    "before a tool that imports": Start("ours, importing, hidden, repository", "first hidden True"),
    "behind a tool that imports": Start("importing, ours, hidden, repository", "first hidden True"),
    "many times": Start("ours, copy, ours, link, hidden, copy, link, repository", "hidden True"),
    # a Python that cannot have stalepool: it is broken, not installed, or for newer ones only
    "broken": Start("ours, broken", "False"),
    "not installed": Start("ours, hidden", "hidden False", python="bare"),
    "2.7, package": Start("ours, ours, package, repository", "hidden False", python="2.7"),
    "3.6, package": Start("ours, ours, package, repository", "hidden False", python="3.6"),
    "2.7, module": Start("ours, ours, hidden, repository", "hidden False", python="2.7"),
    "3.7, package": Start("ours, ours, package, repository", "hidden False", python="3.7"),
}


@pytest.mark.parametrize("name", lanes.first(len(STARTS) - 2, STARTS))
def test_what_is_on_the_path(name: str, directories: Dict[str, Path], request: Any) -> None:
    start, python = STARTS[name], sys.executable
    if start.python:
        is_bare = start.python == "bare"
        python = request.getfixturevalue("bare_python") if is_bare else old_python(start.python)
    environ = path_of(*(directories[each] for each in start.path.split(", ")))
    status, printed, last = outcome(python, "-B", "-Werror", "-c", IS_ON, env=environ)
    assert (status, printed.split(), last) == (0, start.printed.split(), start.last)


def test_the_file_run_once_more(directories: Dict[str, Path], tmp_path: Path) -> None:
    # a second one is on the path, as Debian's in /usr/lib: it hides behind the first, always
    never = lay_out(tmp_path / "second", {"sitecustomize.py": "print('never')"})
    script = (
        "import runpy, sys; before = sys.modules['sitecustomize']; runpy.run_path(%r); "
        "print(sys.modules['sitecustomize'] is before); "
        "from stalepool.patching import import_hook as hook; print(len([f for f in sys.meta_path "
        "if type(f).__module__ == hook.__name__]))" % str(INJECT_DIR / "sitecustomize.py")
    )
    environ = path_of(INJECT_DIR, directories["hidden"], never, REPOSITORY)
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


@pytest.mark.parametrize("version", lanes.first(1, ["2.7", "3.6"]))
def test_an_older_python_reports_a_failing_one(version: str, tmp_path: Path) -> None:
    hidden = lay_out(tmp_path, {"sitecustomize.py": "1 / 0"})
    without, with_it = (
        outcome(old_python(version), "-B", "-c", "print('on')", env=path_of(*places))
        for places in ([hidden], [INJECT_DIR, hidden])
    )
    assert with_it == without
    assert without[1] == "on\n" and without[2]


def test_a_python_without_wrapt_says_so_and_works(bare_python: str) -> None:
    script = (
        "import sys, types; name = 'urllib3.connectionpool'; "
        "sys.modules[name] = types.ModuleType(name); "
        "import stalepool; stalepool.install(); print('on')"
    )
    done = child(bare_python, "-c", script, env=path_of(INJECT_DIR, REPOSITORY))
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert len(done.stderr.splitlines()) == 1 and "wrapt" in done.stderr


# -- stalepool run

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
BY_EVERYBODY, OF_ANOTHER = "may be written to by everybody", "belongs to 12345,"

WORDS = ["--help", "--", "-x", "", "a b", "--version", "'\"", "\u00fc", "--"]


def test_run_becomes_the_command_with_its_arguments_untouched(installation: Path) -> None:
    show = "import json, os, sys; print(json.dumps([os.getpid(), *sys.argv[1:]])); sys.exit(7)"
    start = ["/bin/sh", "-c", 'echo $$; exec "$@"', "sh", *STALEPOOL, "run"]
    done = child(*start, sys.executable, "-c", show, *WORDS, **at(installation))
    process_id, shown = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, shown) == (7, [process_id, *WORDS])


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
    done = child(*command, "echo", "started", **at(installation, STALEPOOL_MODE="activ"))
    assert (done.returncode, done.stdout) == (2, "")
    *earlier, line = done.stderr.splitlines()
    assert line.startswith("stalepool run: STALEPOOL_MODE='activ' is not accepted")
    # before Python 3.10 it is not known at start-up which module is run
    assert len(earlier) == (sys.version_info < (3, 10) and words[0].startswith("-m"))


def test_run_needs_its_directory(tmp_path: Path, run_here: Any, became: Any) -> None:
    why = "%s/stalepool/inject has no sitecustomize.py: install stalepool anew, and unpacked"
    assert run_here("echo", lib=tmp_path) == (1, "stalepool run: %s\n" % why % tmp_path.resolve())
    assert became == []


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("link", "has a ':' in its path"),
        pytest.param("archive.zip", "has no sitecustomize.py", marks=pytest.mark.full),
    ],
)
def test_an_installation_that_cannot_be_injected(place: str, why: str, tmp_path: Path) -> None:
    lib = install(tmp_path / "a:b")
    (tmp_path / "link").symlink_to(lib)
    shutil.make_archive(str(tmp_path / "archive"), "zip", str(lib))
    done = child(*STALEPOOL, "path", env=path_of(tmp_path / place), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("stalepool path: ") and why in line


@pytest.mark.parametrize(
    ("place", "mode", "owner", "why"),
    [
        ("stalepool/inject/__pycache__/sitecustomize.pyc", 0o666, None, BY_EVERYBODY),
        ("stalepool/inject", 0o1777, None, BY_EVERYBODY),
        (".", 0o777, None, BY_EVERYBODY),
        (".", 0o1777, None, None),
        pytest.param("stalepool/patching/import_hook.py", 0o644, 12345, OF_ANOTHER, marks=as_root),
    ],
)
def test_run_refuses_what_others_may_change(
    place: str, mode: int, owner: Any, why: Any, installation: Path, run_here: Any, became: Any
) -> None:
    changed = installation / place
    before = changed.stat()
    changed.chmod(mode)
    if owner is not None:
        os.chown(str(changed), owner, -1)
    try:
        status, err = run_here("echo")
    finally:
        os.chown(str(changed), before.st_uid, -1)
        changed.chmod(before.st_mode)
    assert (status, bool(became)) == ((0, True) if why is None else (2, False))
    assert err == "" if why is None else "stalepool run: %s %s" % (changed.resolve(), why) in err


@as_root
def test_run_takes_what_a_trusted_user_owns(tmp_path: Path, run_here: Any, became: Any) -> None:
    lib = install(tmp_path.resolve() / "lib")
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in [lib, *lib.rglob("*")]:
        os.lchown(str(path), nobody, 12345)
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
def test_the_python_of_a_script(first_line: str, tmp_path: Path, monkeypatch: Any) -> None:
    for directory in (tmp_path, tmp_path / "a b"):
        a_script(directory, "python3", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    script = a_script(tmp_path, "it", first_line.format(place=tmp_path))
    expected = [word.format(place=tmp_path) for word in FIRST_LINES[first_line]]
    assert interpreter.python_of([str(script), "-x"]) == expected


@pytest.mark.parametrize(
    ("words", "is_without"),
    [
        (["{script}", "-x"], True),
        ([sys.executable, "-E", "-c", "print('started')", "-I"], True),
        ([sys.executable, "-s", "-B", "-c", "print('started')", "-I"], False),
    ],
    ids=["a script's", "hidden from", "not hidden from"],
)
def test_run_warns_where_a_python_has_no_stalepool(
    words: List[str], is_without: bool, tmp_path: Path, run_here: Any, became: Any
) -> None:
    script = a_script(tmp_path, "it", "#!%s -I" % sys.executable)
    words = [word.format(script=script) for word in words]
    status, err = run_here(*words)
    assert status == 0 and became
    says = "stalepool run: %s starts without stalepool: " % words[0]
    assert [line.startswith(says) for line in err.splitlines()] == [True] * is_without


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
        (0o1777, MALLORY, USERS, True, True),  # an owner is bound by no sticky bit
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
        (0o775, DEPLOY, DEPLOYERS, False, False),  # who is trusted
    ],
)
@pytest.mark.usefixtures("as_nova")
def test_in_whose_hands_it_is(
    mode: int, user: int, group: int, is_parent: bool, is_refused: bool
) -> None:
    status = os.stat_result((mode, 1, 1, 1, user, group, 0, 0, 0, 0))
    assert bool(owners.other_hands(status, [DEPLOY], is_parent)) is is_refused
