"""The start-up file in site-packages, as pip installs it from an sdist."""

import shutil
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

from conftest import REPOSITORY, child
from service_process import COVERED

START = "stalepool-start.pth"
NO_SOURCES = shutil.ignore_patterns(".*", "tests", "docs", "build", "*.egg-info", "__pycache__")
BUILD = "import sys; from setuptools import build_meta as b; print(b.build_%s(sys.argv[1]))"
IS_ON = "import sys; print('stalepool' in sys.modules)"

# an sdist, a wheel and an environment take a quarter of a minute to make
pytestmark = pytest.mark.full


def build(form, sources, target):
    """Build as pip does, with the setuptools that is here; returns the file."""
    target.mkdir(exist_ok=True)
    done = child("-c", BUILD % form, target, cwd=sources)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.split()[-1]


class Installed:
    """A fresh environment with stalepool from a wheel; what it rides in is the tests' own."""

    def __init__(self, directory, wheel):
        venv.create(str(directory), symlinks=True, with_pip=True)
        self.python = directory / "bin" / "python"
        self.install = ("install", "--no-deps", "--no-index", wheel)
        self.pip(*self.install)
        place = self.run("import sysconfig; print(sysconfig.get_path('purelib'))")
        self.site_packages = Path(place.stdout.strip())
        (self.site_packages / "guests.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, script, *args, **variables):
        alone = {"PYTHONPATH": "", **variables}
        return child(self.python, "-c", script, *args, env=alone, cwd=self.python.parent)

    def pip(self, *words):
        done = child(self.python, "-m", "pip", "-q", *words, env={"PYTHONPATH": ""})
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """From a wheel that is built from the sdist."""
    # not imported here: it refuses where distutils of the standard library is loaded already
    if tuple(map(int, version("setuptools").split(".")[:2])) < (70, 1):
        pytest.skip("needs the setuptools of the extra test")
    directory = tmp_path_factory.mktemp("build")
    shutil.copytree(str(REPOSITORY), str(directory / "sources"), ignore=NO_SOURCES)
    sdist = build("sdist", directory / "sources", directory)
    how = {"filter": "data"} if sys.version_info >= (3, 12) else {}
    shutil.unpack_archive(str(sdist), str(directory / "unpacked"), **how)
    (unpacked,) = (directory / "unpacked").iterdir()
    return Installed(directory / "venv", build("wheel", unpacked, directory / "wheel"))


def test_with_the_switch_a_service_is_covered(installed, port):
    done = installed.run(COVERED, port, STALEPOOL="1")
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


@pytest.mark.parametrize("variables", [{}, {"STALEPOOL": "0"}, {"STALEPOOL": "11"}])
def test_without_the_switch_nothing_happens(installed, variables):
    """Nor does it cost anything: nothing is imported."""
    look = "import sys; print(sorted(sys.modules))"
    start = installed.site_packages / START
    with_it = installed.run(look, **variables)
    hidden = start.rename(start.with_suffix(".hidden"))
    without = installed.run(look, **variables)
    hidden.rename(start)
    assert (with_it.stdout, with_it.stderr) == (without.stdout, "")


@pytest.mark.parametrize(("flag", "is_on"), [("-I", True), ("-E", True), ("-S", False)])
def test_options_of_python(installed, flag, is_on):
    call = "import subprocess, sys; subprocess.call([sys.executable, *sys.argv[1:]])"
    done = installed.run(call, flag, "-c", IS_ON, STALEPOOL="1")
    assert done.stdout == "%s\n" % is_on, done.stderr


def test_a_broken_stalepool_lets_the_process_start(installed):
    init = installed.site_packages / "stalepool" / "__init__.py"
    text = init.read_text()
    init.write_text("1 / 0")
    done = installed.run("print('on')", STALEPOOL="1")
    init.write_text(text)
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert "division by zero" in done.stderr


def test_uninstalling_takes_it_away(installed):
    assert (installed.site_packages / START).is_file()
    installed.pip("uninstall", "--yes", "stalepool")
    assert not list(installed.site_packages.glob("*stalepool*"))
    done = installed.run(IS_ON, STALEPOOL="1")
    assert (done.stdout, done.stderr) == ("False\n", "")
    installed.pip(*installed.install)  # for the others
