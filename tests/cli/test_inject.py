"""Getting into a process by ``stalepool run``, and the sitecustomize.py that must harm nobody."""

import functools
import glob
import json
import os
import pwd
import re
import shutil
import signal
import sys
from types import SimpleNamespace

import pytest

import lanes
from conftest import REPOSITORY, child
from service_process import COVERED
from stalepool.cli import inject, interpreter, owners

STALEPOOL = [sys.executable, "-m", "stalepool"]
INJECT_DIR = inject.INJECT_DIR


def path_of(*directories):
    return {"PYTHONPATH": os.pathsep.join(map(str, directories))}


def lay_out(directory, files):
    """Write these files, or a ``sitecustomize.py`` of this text."""
    files = files if isinstance(files, dict) else {"sitecustomize.py": files}
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return directory


# -- what sitecustomize.py hides runs as it would have run -----------------------------------------

#: how newrelic and ddtrace chain: each looks for the next one behind its own directory
SEARCHING = """
import os, sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
print("first")
here = os.path.dirname(__file__)
spec = PathFinder.find_spec("sitecustomize", [p for p in sys.path if p != here])
if spec is not None:
    spec.loader.exec_module(module_from_spec(spec))
"""
#: what is hidden -> its file, or several
HIDDEN = {
    "module": "print('hidden', __name__, __file__, __package__)",
    "package": {
        "sitecustomize/__init__.py": "from sitecustomize import one\nfrom . import two\n"
        "print('hidden', __name__, __file__, __path__, __package__)",
        "sitecustomize/one.py": "print('one')",
        "sitecustomize/two.py": "print('two')",
        "sitecustomize.py": "print('the package goes first')",
    },
    "raises": "print('hidden')\n1 / 0",
    "exits": "import sys\nsys.exit(3)",
    "replaces itself": "import os, sys\nsys.modules[__name__] = os",
}
#: what else may lie on the path
DIRECTORIES = {
    "nothing": {"other.py": ""},
    "no package": {"sitecustomize/readme.txt": ""},
    "hidden": "print('hidden')",
    "with a package": {
        "sitecustomize/__init__.py": "from sitecustomize import one\nprint('hidden')",
        "sitecustomize/one.py": "",
    },
    "broken": {"stalepool/__init__.py": "1 / 0"},
    "searching": SEARCHING,
}


@functools.lru_cache(maxsize=None)
def python_of(version):
    """A Python of this version that runs, from pyenv or from PATH; skips without one."""
    if not version:
        return sys.executable
    pyenv = os.path.expanduser("~/.pyenv/versions/%s*/bin/python" % version)
    for candidate in [*glob.glob(pyenv), shutil.which("python" + version)]:
        if candidate is not None and child(candidate, "-c", "").returncode == 0:
            return candidate
    pytest.skip("no Python %s on this machine" % version)


def outcome(*words, env, **options):
    """Exit status, output, and the last thing said on stderr."""
    done = child(*words, env=env, **options)
    return done.returncode, done.stdout, "".join(done.stderr.splitlines()[-1:])


IS_ON = "import sys; print('stalepool' in sys.modules)"


@pytest.mark.parametrize(("hidden", "version"), [*((x, "") for x in HIDDEN), ("raises", "2.7")])
def test_what_is_hidden_runs_as_it_would_have(hidden, version, tmp_path):
    directory = lay_out(tmp_path, HIDDEN[hidden])

    def say(*places):
        script = IS_ON + "; print(sys.modules.get('sitecustomize'))"
        return outcome(python_of(version), "-B", "-c", script, env=path_of(*places, REPOSITORY))

    status, printed, last = say(directory)
    if not version:
        printed = printed.replace("False", "True")
    assert say(INJECT_DIR, directory) == (status, printed, last)


#: what is on the path of a Python, of this version or another; what it prints, and if it is on
STARTS = {
    "nothing hidden": ("ours, nothing, no package, repository", "True", ""),
    # each of two tools that chain as well runs once
    "before a tool": ("ours, searching, hidden, repository", "first hidden True", ""),
    "behind a tool": ("searching, ours, hidden, repository", "first hidden True", ""),
    "many times": ("ours, copy, ours, link, hidden, copy, link, repository", "hidden True", ""),
    # a Python that cannot have stalepool: it is broken, or for newer ones only
    "broken": ("ours, broken, hidden", "hidden False", ""),
    "2.7": ("ours, ours, with a package, repository", "hidden False", "2.7"),
    "3.7": ("ours, ours, with a package, repository", "hidden False", "3.7"),
}


@pytest.mark.parametrize("name", STARTS)
def test_what_is_on_the_path(name, tmp_path):
    (tmp_path / "link").symlink_to(INJECT_DIR)
    shutil.copytree(str(INJECT_DIR), str(tmp_path / "copy"))
    for each, files in DIRECTORIES.items():
        lay_out(tmp_path / each, files)
    elsewhere = {"ours": INJECT_DIR, "repository": REPOSITORY}
    path, printed, version = STARTS[name]
    environ = path_of(*(elsewhere.get(each, tmp_path / each) for each in path.split(", ")))
    found = outcome(python_of(version), "-B", "-Werror", "-c", IS_ON, env=environ)
    assert found == (0, printed.replace(" ", "\n") + "\n", "")


def test_the_file_run_once_more(tmp_path):
    # a second one is on the path, as Debian's in /usr/lib: it hides behind the first, always
    hidden, never = (lay_out(tmp_path / each, "print(%r)" % each) for each in "12")
    script = """
import runpy, sys
before = sys.modules["sitecustomize"]
runpy.run_path(%r)
print(sys.modules["sitecustomize"] is before)
print(["import_hook" in type(finder).__module__ for finder in sys.meta_path].count(True))
"""
    words = [sys.executable, "-c", script % str(INJECT_DIR / "sitecustomize.py")]
    environ = path_of(INJECT_DIR, hidden, never, REPOSITORY)
    assert outcome(*words, env=environ) == (0, "1\nTrue\n1\n", "")


@pytest.mark.parametrize("version", lanes.first(1, ["", "2.7"]))
def test_a_working_directory_that_is_gone(version, tmp_path):
    hidden = lay_out(tmp_path / "hidden", "print('hidden')")
    gone = tmp_path / "gone"

    def look(*places):
        gone.mkdir()
        start = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", python_of(version)]
        found = outcome(*start, "-Bc", "print('on')", env=path_of(*places), cwd=gone)
        return [re.sub("0x[0-9a-f]+", "", str(each)) for each in found]  # 3.15 names the thread

    # Python 3.11 and later do not start there, if PYTHONPATH has something relative in it
    assert look("elsewhere", INJECT_DIR, "", hidden) == look("elsewhere", "", hidden)


# -- stalepool run ---------------------------------------------------------------------------------

WORDS = ["--help", "--", "-x", "", "a b", "--version", "'\"", "\u00fc", "--"]
IGNORED = signal.SIGPIPE, signal.SIGXFSZ  # by Python, and not by what is run


def install(lib):
    """Put a copy of the package into a directory, in the hands of whoever runs the tests.

    The repository may be in other hands, and ``stalepool run`` minds: a container often runs as
    root what is mounted into it from somebody's home.
    """
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(str(REPOSITORY / "stalepool"), str(lib / "stalepool"), ignore=compiled)
    lay_out(lib, {"stalepool/inject/__pycache__/sitecustomize.pyc": ""})
    for path in [lib, *lib.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o022)
    (lib / "stalepool" / "link").symlink_to("nowhere")  # nobody minds
    return lib


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    return install(tmp_path_factory.mktemp("installation") / "lib")


@pytest.fixture
def run_here(installation, monkeypatch, stalepool_here):
    """``stalepool run WORDS`` of an installation, in this process: exit status, and stderr."""

    def run_here(*words, lib=installation):
        package = lib.resolve() / "stalepool"
        monkeypatch.setattr(inject, "PACKAGE_DIR", package)
        monkeypatch.setattr(inject, "INJECT_DIR", package / "inject")
        done = stalepool_here("run", *words)
        assert done.stdout == ""
        return done.returncode, done.stderr

    monkeypatch.setenv("PYTHONPATH", str(installation))
    yield run_here
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def became(monkeypatch):
    """The command lines this process would have become, each with its environment."""
    found = []
    monkeypatch.setattr(os, "execve", lambda _, *what: found.append(what) or sys.exit(0))
    return found


def test_run_becomes_the_command_and_its_children_have_the_shim(port, installation, tmp_path):
    command = (
        "import json, os, subprocess, sys; assert 'stalepool' in sys.modules; "
        "subprocess.check_call([sys.executable, *sys.argv[1:3]]); "
        "print(json.dumps([os.getpid(), *sys.argv[3:]])); sys.exit(7)"
    )
    service = lay_out(tmp_path, {"service.py": COVERED}) / "service.py"
    start = ["/bin/sh", "-c", 'echo $$; exec "$@"', "sh", *STALEPOOL, "run"]
    words = [sys.executable, "-c", command, service, port, *WORDS]
    environ = {**path_of(installation), "PYTHONDONTWRITEBYTECODE": "1"}
    done = child(*start, *words, env=environ, cwd=installation)  # where "-m" looks first
    assert done.returncode == 7, done.stderr
    process_id, said, shown = done.stdout.splitlines()
    assert (said, json.loads(shown)) == ("covered", [int(process_id), *WORDS])


@pytest.mark.parametrize("is_a_unit", [False, True])
def test_run_changes_nothing_but_pythonpath_and_signals(
    is_a_unit, run_here, became, installation, monkeypatch
):
    """A unit of systemd still ignores SIGPIPE."""
    directory = str(installation / "stalepool" / "inject")
    before, after = ["", str(installation)], ["", "relative", ""]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*before, directory, *after]))
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid() if is_a_unit else os.getppid()))
    assert run_here("--", "echo", *WORDS) == (0, "")
    path = os.pathsep.join([directory, *before, *after])
    assert became == [(["echo", *WORDS], {**os.environ, "PYTHONPATH": path})]
    expected = [signal.SIG_IGN if is_a_unit else signal.SIG_DFL, signal.SIG_DFL]
    assert [signal.getsignal(number) for number in IGNORED] == expected


@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C.UTF-8"}], ids=["none", "a locale"])
def test_run_adds_no_locale_as_python_does(locale, installation):
    environ = {**path_of(installation), **locale}
    done = child("/usr/bin/env", "-i", *map("=".join, environ.items()), *STALEPOOL, "run", "env")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("LC_")] == [
        "=".join(item) for item in locale.items()
    ]


def test_the_path_is_what_run_puts_on_pythonpath(stalepool_here):
    directory = stalepool_here("path").stdout.rstrip("\n")
    for before in {}, {"PYTHONPATH": ""}:
        assert inject.injected(before) == {"PYTHONPATH": directory}
    assert set(os.listdir(directory)) - {"__pycache__"} == {"sitecustomize.py"}


def test_run_cannot_execute(run_here, tmp_path, monkeypatch):
    lay_out(tmp_path, {"text": "echo no", "binary": "\177ELF\0", "bin/text": "echo no"})
    lay_out(tmp_path, {"bin/directory/file": "", "locked/command": ""})
    (tmp_path / "binary").chmod(0o755)
    (tmp_path / "locked").chmod(0)  # only root may look into it
    places = [tmp_path / "bin", tmp_path / "locked", os.environ["PATH"], tmp_path / "text"]
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, places)))
    denied, unknown = (126, "cannot execute: Permission denied"), (127, "command not found")
    commands = {
        str(tmp_path / "text"): denied,
        str(tmp_path / "binary"): (126, "cannot execute: Exec format error"),
        str(tmp_path): denied,
        "text": denied,
        str(tmp_path / "nothing"): unknown,
        "no-such-command": unknown,
        "directory": unknown,
    }
    found = {command: run_here(command) for command in commands}
    (tmp_path / "locked").chmod(0o755)
    for command, (status, why) in commands.items():
        assert found[command] == (status, "stalepool run: %s: %s\n" % (command, why))


def test_run_gives_a_script_without_an_interpreter_to_the_shell(installation, tmp_path):
    script = (
        lay_out(tmp_path, {"script": 'printf "%s\\n" "$0" "${PYTHONPATH%%:*}" "$@"'}) / "script"
    )
    script.chmod(0o755)
    environ = {**path_of(installation), "PATH": "%s:%s" % (tmp_path, os.environ["PATH"])}
    done = child(*STALEPOOL, "run", "script", *WORDS, env=environ, cwd=tmp_path)
    injected = str(installation.resolve() / "stalepool" / "inject")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == [str(script), injected, *WORDS, ""]


def test_run_starts_nothing_where_it_cannot_inject(run_here, became, tmp_path, monkeypatch):
    why = "%s/stalepool/inject has no sitecustomize.py: install stalepool anew, and unpacked"
    assert run_here("echo", lib=tmp_path) == (1, "stalepool run: %s\n" % why % tmp_path.resolve())
    monkeypatch.setenv("STALEPOOL_MODE", "activ")
    status, err = run_here("echo")
    assert status == 2
    assert err.startswith("stalepool run: STALEPOOL_MODE='activ' is not accepted")
    assert became == []


def test_a_path_that_would_be_split(tmp_path):
    (tmp_path / "link").symlink_to(install(tmp_path / "a:b"))
    done = child(*STALEPOOL, "path", env=path_of(tmp_path / "link"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("stalepool path: .* has a ':' in its path, .*\n", done.stderr)


@pytest.mark.parametrize(
    ("place", "mode", "is_refused"),
    [
        ("stalepool/inject/__pycache__/sitecustomize.pyc", 0o666, True),
        ("stalepool/inject", 0o1777, True),
        (".", 0o777, True),
        (".", 0o1777, False),
    ],
)
def test_run_refuses_what_others_may_change(
    place, mode, is_refused, installation, run_here, became
):
    changed = installation / place
    before = changed.stat().st_mode
    changed.chmod(mode)
    status, err = run_here("echo")
    changed.chmod(before)
    assert (status, bool(became)) == ((2, False) if is_refused else (0, True))
    whose = "stalepool run: %s may be written to by everybody" % changed.resolve()
    assert (whose in err) is is_refused


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_run_takes_what_a_trusted_user_owns(tmp_path, run_here, became):
    lib = install(tmp_path.resolve() / "lib")
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in [lib, *lib.rglob("*")]:
        os.lchown(str(path), nobody, 12345)
    cli = lib / "stalepool" / "cli"
    cli.chmod(0o775)
    for trusted, whose in (
        ([], "%s belongs to nobody, who could" % cli.parent),
        (["--trust", "nobody"], "%s may be written to by the group 12345, who could" % cli),
    ):
        status, err = run_here(*trusted, "echo", lib=lib)
        assert status == 2 and err.startswith("stalepool run: " + whose)
    assert became == []
    cli.chmod(0o755)
    for trusted in ["--trust", "daemon", "--trust", "nobody"], ["--trust", str(nobody)]:
        assert run_here(*trusted, "echo", lib=lib) == (0, "")


# -- the Python of CMD -----------------------------------------------------------------------------


def a_script(directory, name, first_line):
    script = lay_out(directory, {name: first_line + "\nprint('started')"}) / name
    script.chmod(0o755)
    return script


#: the first line of a script -> the Python that it starts, with its options
FIRST_LINES = {
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
def test_the_python_of_a_script(first_line, tmp_path, monkeypatch):
    for directory in (tmp_path, tmp_path / "a b"):
        a_script(directory, "python3", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    script = a_script(tmp_path, "it", first_line.format(place=tmp_path))
    expected = [word.format(place=tmp_path) for word in FIRST_LINES[first_line]]
    assert interpreter.python_of([str(script), "-x"]) == expected


def test_run_warns_where_a_python_has_no_stalepool(tmp_path, run_here, became):
    script = a_script(tmp_path, "it", "#!%s -I" % sys.executable)
    hidden, found = [sys.executable, "-E"], [sys.executable, "-s", "-B"]
    for start, is_without in ([script], True), (hidden, True), (found, False):
        status, err = run_here(*start, "-c", "print('started')", "-I")
        assert status == 0 and became
        says = "stalepool run: %s starts without stalepool: " % start[0]
        assert [line.startswith(says) for line in err.splitlines()] == [True] * is_without


# -- whose files they are: root, nova, and mallory, who is nobody's friend -------------------------

ROOT, NOVA, MALLORY, DEPLOY = 0, 1001, 1002, 1003
STAFF, USERS, TEAM, LDAP, PRIVATE, DEPLOYERS, UNKNOWN = 50, 100, 200, 300, 1001, 1003, 65000

#: group -> whom it lists; user -> number, and primary group
NO_MEMBERS = dict.fromkeys((ROOT, STAFF, USERS, PRIVATE, DEPLOYERS), ())
GROUPS = {**NO_MEMBERS, ROOT: ["mallory"], TEAM: ["mallory"], LDAP: ["eve"]}
STRANGERS = {"mallory": (MALLORY, USERS), "deploy": (DEPLOY, DEPLOYERS)}
PRIMARY = {"root": (ROOT, ROOT), "nova": (NOVA, PRIVATE), **STRANGERS}


@pytest.mark.parametrize(
    ("mode", "user", "group", "is_parent", "is_refused"),
    [
        (0o755, MALLORY, USERS, False, True),
        (0o1777, MALLORY, USERS, True, True),  # an owner is bound by no sticky bit
        (0o757, ROOT, ROOT, False, True),
        (0o777, ROOT, ROOT, True, True),
        (0o1777, ROOT, ROOT, True, False),
        (0o1777, ROOT, ROOT, False, True),
        (0o775, ROOT, ROOT, False, False),  # whomever it lists
        (0o664, NOVA, PRIVATE, False, False),  # the umask 002 of private groups
        (0o2775, ROOT, STAFF, True, False),  # /usr/local of some distributions
        (0o775, NOVA, USERS, False, True),  # somebody's primary group
        (0o775, NOVA, TEAM, False, True),
        (0o775, NOVA, LDAP, False, True),  # a member whom nobody lists
        (0o775, NOVA, UNKNOWN, False, True),
        (0o775, DEPLOY, DEPLOYERS, False, False),  # who is trusted
    ],
)
def test_in_whose_hands_it_is(mode, user, group, is_parent, is_refused, monkeypatch):
    users = [SimpleNamespace(pw_name=n, pw_uid=u, pw_gid=g) for n, (u, g) in PRIMARY.items()]
    groups = {number: SimpleNamespace(gr_name="x", gr_mem=who) for number, who in GROUPS.items()}
    by_number = {each.pw_uid: each for each in users}
    known = SimpleNamespace(getpwall=lambda: users, getpwuid=by_number.__getitem__)
    monkeypatch.setattr(owners, "pwd", known)
    monkeypatch.setattr(owners, "grp", SimpleNamespace(getgrgid=groups.__getitem__))
    monkeypatch.setattr(owners.os, "geteuid", lambda: NOVA)
    owners._is_private.cache_clear()
    status = os.stat_result((mode, 1, 1, 1, user, group, 0, 0, 0, 0))
    assert bool(owners.who_else_may_write(status, [DEPLOY], is_parent)) is is_refused
    owners._is_private.cache_clear()
