"""The sitecustomize.py that must harm nobody: what it hides runs as it would have run."""

import functools
import glob
import os
import re
import shutil
import sys

import pytest

from conftest import REPOSITORY, child
from files import lay_out, path_of
from stalepool.cli.inject import INJECT_DIR

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
    "2.7": ("ours, ours, nothing, with a package, repository", "hidden False", "2.7"),
    "3.7": ("ours, ours, with a package, repository", "hidden False", "3.7"),
}


@pytest.mark.parametrize("path, printed, version", STARTS.values(), ids=STARTS)
def test_what_is_on_the_path(path, printed, version, tmp_path):
    (tmp_path / "link").symlink_to(INJECT_DIR)
    shutil.copytree(str(INJECT_DIR), str(tmp_path / "copy"))
    for each, files in DIRECTORIES.items():
        lay_out(tmp_path / each, files)
    elsewhere = {"ours": INJECT_DIR, "repository": REPOSITORY}
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


@pytest.mark.parametrize("version", ["", "2.7"])
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
