"""The start-up file in site-packages, as pip installs it from the wheel and from the sdist."""

from __future__ import annotations

import json
import os
import shutil
import site
import sys
import sysconfig
import timeit
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable

import pytest

from conftest import REPOSITORY, child
from service import SERVICE

START = "stalepool-start.pth"

# a wheel, an sdist and two environments take half a minute to make
pytestmark = pytest.mark.full

SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.rst", "LICENSE")

BUILD = "import sys; from setuptools import build_meta as b; print(b.build_%s(sys.argv[1]))"


def build(form: str, sources: Path, target: Path) -> Path:
    """Build as pip does, with the setuptools that is here; returns the file."""
    done = child("-c", BUILD % form, target, cwd=sources)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.split()[-1]


class Installed:
    """A fresh environment with stalepool from a wheel; what it rides in is the tests' own."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        venv.create(str(directory), symlinks=True, with_pip=True)
        self.python = directory / "bin" / "python"
        self.pip("install", "--no-deps", "--no-index", wheel)
        self.site_packages = Path(
            self.run("import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
        )
        guests = self.site_packages / "tests-guests.pth"
        guests.write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, script: str, *args: object, **variables: str) -> Any:
        alone = {"PYTHONPATH": "", **variables}
        return child(self.python, "-c", script, *args, env=alone, cwd=self.python.parent)

    def pip(self, *words: object) -> None:
        done = child(self.python, "-m", "pip", "-q", *words, env={"PYTHONPATH": ""})
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One built from the sources, one from the sdist."""
    # not imported here: it refuses where distutils of the standard library is loaded already
    if tuple(map(int, version("setuptools").split(".")[:2])) < (70, 1):
        pytest.skip("needs the setuptools of the extra test")
    directory = tmp_path_factory.mktemp("build")
    sources = directory / "sources"
    for package in "stalepool", "stalepool_testing":
        shutil.copytree(str(REPOSITORY / package), str(sources / package))
    for name in (*SOURCES, START, "pytest_stalepool.py"):
        shutil.copy(str(REPOSITORY / name), str(sources))
    sdist = build("sdist", sources, directory)
    how: Any = {"filter": "data"} if sys.version_info >= (3, 12) else {}
    shutil.unpack_archive(str(sdist), str(directory / "unpacked"), **how)
    (unpacked,) = (directory / "unpacked").iterdir()
    found = {"wheel": (sources, directory / "1"), "sdist": (unpacked, directory / "2")}
    for _, target in found.values():
        target.mkdir()
    return {form: build("wheel", *places) for form, places in found.items()}


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(
    request: pytest.FixtureRequest,
    wheels: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Installed:
    return Installed(tmp_path_factory.mktemp(request.param), wheels[request.param])


LOOK = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def test_with_the_switch_a_service_is_covered(installed: Installed, port: int) -> None:
    done = installed.run(SERVICE, port, STALEPOOL="1")
    assert (done.returncode, done.stdout) == (0, "covered\n"), done.stderr


@pytest.mark.parametrize("value", [None, "0", "11"])
def test_without_the_switch_nothing_happens(installed: Installed, value: Any) -> None:
    start = installed.site_packages / START
    variables = {} if value is None else {"STALEPOOL": value}
    with_it = installed.run(LOOK, **variables)
    hidden = start.rename(start.with_suffix(".hidden"))
    without = installed.run(LOOK, **variables)
    hidden.rename(start)
    assert (with_it.returncode, with_it.stderr) == (0, "")
    assert json.loads(with_it.stdout) == json.loads(without.stdout)


@pytest.mark.parametrize(("flag", "is_on"), [("-I", True), ("-E", True), ("-S", False)])
def test_options_of_python(installed: Installed, flag: str, is_on: bool) -> None:
    show = "import sys; print('stalepool' in sys.modules)"
    call = "import subprocess, sys; subprocess.call([sys.executable, *sys.argv[1:]])"
    done = installed.run(call, flag, "-c", show, STALEPOOL="1")
    assert done.stdout == "%s\n" % is_on, done.stderr


def test_a_broken_stalepool_lets_the_process_start(installed: Installed) -> None:
    init = installed.site_packages / "stalepool" / "__init__.py"
    text = init.read_text()
    init.write_text("1 / 0")
    try:
        done = installed.run("print('on')", STALEPOOL="1")
    finally:
        init.write_text(text)
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert "division by zero" in done.stderr


def test_uninstalling_takes_it_away(wheels: dict[str, Path], tmp_path: Path) -> None:
    fresh = Installed(tmp_path / "fresh", wheels["wheel"])
    assert (fresh.site_packages / START).is_file()
    fresh.pip("uninstall", "--yes", "stalepool")
    assert not list(fresh.site_packages.glob("*stalepool*"))
    done = fresh.run("import sys; print('stalepool' in sys.modules)", STALEPOOL="1")
    assert (done.stdout, done.stderr) == ("False\n", "")


def best_of(function: Callable[[], object]) -> float:
    return min(timeit.repeat(function, number=1, repeat=500))


def test_it_costs_less_than_one_empty_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what site.py spends on any file of the kind: measured, half of it."""
    (tmp_path / "plain.pth").write_text("# nothing\n")
    (tmp_path / "an_empty_module.py").write_text("")
    shutil.copy(str(REPOSITORY / START), str(tmp_path))
    monkeypatch.delenv("STALEPOOL", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    def load() -> None:
        sys.modules.pop("an_empty_module", None)
        import an_empty_module  # noqa: F401

    ours, plain = (
        best_of(lambda name=name: site.addpackage(str(tmp_path), name, set()))  # type: ignore
        for name in (START, "plain.pth")
    )
    assert 0 < ours - plain < best_of(load)
    assert os.environ.get("STALEPOOL") is None
