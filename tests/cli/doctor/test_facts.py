"""Facts about an environment, in a Python of its own."""

import re
import sys
from importlib import metadata

from conftest import REPOSITORY, child
from files import lay_out, path_of
from stalepool.cli import inject
from stalepool.cli.doctor import facts

PACKAGES = ("wrapt", "requests", "keystoneauth1", "eventlet", "gevent")


def test_an_environment(environment):
    found = environment(STALEPOOL_SILENCE_S="20")
    assert "\nok patches: patched: urllib3.connectionpool\nok" in found
    assert "\nok settings: silence_s=20.0\n" in found
    options = "SO_KEEPALIVE 1, TCP_KEEPIDLE 5, TCP_KEEPINTVL 3, TCP_KEEPCNT 42, TCP_USER_TIMEOUT 0"
    assert re.search("\nok keepalive: .*" + options, found)
    sysctls = {"tcp_retries2", *("tcp_keepalive_" + name for name in ("time", "intvl", "probes"))}
    assert set(re.findall(r"tcp_\w+", found)) == sysctls
    (shown,) = re.findall("\nok versions: (.*)", found)
    shown = set(re.findall(r"(\w+) [\d.]+", shown))
    installed = {name for name in PACKAGES if any(metadata.distributions(name=name))}
    assert shown == {"stalepool", "urllib3"} | installed


def test_a_setting_that_is_wrong(monkeypatch):
    monkeypatch.setenv("STALEPOOL_MODE", "activ")
    assert facts.of_machine()["settings"].startswith("STALEPOOL_MODE='activ' is not accepted")


def test_where_stalepool_run_works_and_where_it_refuses(monkeypatch, tmp_path):
    assert facts.of_environment()["start"]["is_injectable"] is True
    monkeypatch.setattr(inject, "INJECT_DIR", tmp_path)
    assert facts.of_environment()["start"]["is_injectable"] is False


def test_a_home_that_cannot_be_looked_into(environment):
    """As root's is after ``runuser -u USER``; root may, so here its name is too long instead."""
    assert "\nok patches: patched" in environment(PYTHONUSERBASE="/" + "x" * 300)


def test_a_library_that_only_has_the_name(tmp_path, environment):
    init = "from . import connectionpool; __version__ = '4.0'"
    pool = "class HTTPConnectionPool: pass"
    lay_out(tmp_path / "urllib3", {"__init__.py": init, "connectionpool.py": pool})
    found = environment(**path_of(tmp_path, REPOSITORY))
    assert "\nwarning urllib3: urllib3 4.0\n" in found
    assert ".connectionpool.is_connection_dropped: not there\n" in found
    assert "\nwarning keepalive: no connection could be made" in found


def test_it_needs_few_descriptors_and_no_other_package_of_ours(tmp_path):
    lay_out(tmp_path, "import sys; sys.modules['stalepool_testing'] = None")
    doctor = [sys.executable, "-m", "stalepool", "doctor"]
    start = ["/bin/sh", "-c", 'ulimit -n 8 && exec "$@"', "sh", *doctor]
    done = child(*start, env=path_of(tmp_path, REPOSITORY))
    assert (done.returncode, done.stderr) == (0, "")
    assert "SO_KEEPALIVE 1, TCP_KEEPIDLE 5" in done.stdout
