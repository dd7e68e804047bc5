"""The options of oslo.config, a section of oslo.reports, and our lines in oslo.log's file."""

import json
import re
import sys

import pytest
import urllib3  # noqa: F401  # without it no settings are in force

import stalepool
from conftest import REPOSITORY, child
from stalepool import runtime
from stalepool.settings import SETTINGS, Settings
from suite import write_metadata

cfg = pytest.importorskip("oslo_config.cfg", reason="needs the extra oslo")


@pytest.fixture
def install(tmp_path):
    """Installs with a configuration file, and gives the settings that are in force then."""
    from stalepool.contrib import oslo

    def install_with(options):
        (tmp_path / "nova.conf").write_text("[stalepool]\n" + options)
        conf = cfg.ConfigOpts()
        conf(["--config-file", str(tmp_path / "nova.conf")])
        oslo.install(conf)
        oslo.install(conf)  # as by two parts of a service
        return runtime.current and runtime.current.as_dict()

    yield install_with
    stalepool.install()


def test_what_the_file_says_goes_before_the_variables(install, monkeypatch):
    assert install("") == Settings().as_dict()
    assert install("enabled = false\n") is None
    monkeypatch.setenv("STALEPOOL_MODE", "active")
    monkeypatch.setenv("STALEPOOL_REPLAY", "safe")
    found = install("mode = audit\nsilence_s = off\nkeepalive_count = 9\npresend_check = no\n")
    said = {"mode": "audit", "silence_s": None, "keepalive_count": 9, "presend_check": False}
    assert found == {**Settings().as_dict(), **said, "replay": "safe"}


def test_a_wrong_value_is_named_with_what_is_accepted(install):
    with pytest.raises(cfg.ConfigFileValueError, match=r"option mode.*nova\.conf") as refused:
        install("mode = activ\n")
    assert str(refused.value).endswith("it takes active or audit")


@pytest.mark.skipif(
    sys.version_info < (3, 10), reason="oslo.config's generator does not find itself before 3.10"
)
def test_the_generator_finds_every_option(tmp_path):
    """By the entry point, as pip leaves it behind."""
    write_metadata(tmp_path, "[oslo.config.opts]\nstalepool = stalepool.contrib.oslo:list_opts\n")
    words = ["-m", "oslo_config.generator", "--namespace", "stalepool"]
    done = child(*words, env={"PYTHONPATH": "%s:%s" % (REPOSITORY, tmp_path)}, check=True)
    lines = ["[stalepool]", "#silence_s = 15", "#max_idle_s = off"]
    for beginning in [*lines, *("#%s = " % name for name in SETTINGS)]:
        assert "\n" + beginning in done.stdout


REPORT = """
import urllib3, warnings; warnings.simplefilter('ignore')
from oslo_reports import guru_meditation_report
from stalepool.contrib import oslo
class Version:
    def vendor_string(self): return "vendor"
    def product_string(self): return "product"
    def version_string_with_package(self): return "1"
oslo.register_report()
meet_a_dead_connection(urllib3.connectionpool)
print(json.dumps(guru_meditation_report.TextGuruMeditation(Version()).run()))
"""


def test_a_section_of_the_report(run_order, port):
    pytest.importorskip("oslo_reports", reason="needs the extra oslo")
    report = run_order(REPORT, flags=["-Werror"])
    _, title, section = report.partition("====                           stalepool ")
    assert title
    found, _ = json.JSONDecoder().raw_decode(section[section.index("{") :])
    assert found["origins"]["http://127.0.0.1:%d" % port]["discards"] == 1
    assert found["fallbacks"] == {}


LOGGING = """
import stalepool, urllib3, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from oslo_config import cfg
    from oslo_log import log
conf = cfg.ConfigOpts()
log.register_options(conf)
conf(["--config-file", sys.argv[2]])
log.setup(conf, "nova")
log.getLogger("nova").info("before")
meet_a_dead_connection(urllib3.connectionpool)
"""
CONFIG = """
[DEFAULT]
use_stderr = false
log_file = %s
default_log_levels = urllib3=WARN,stalepool=WARN,stalepool.checkout=DEBUG
"""

#: oslo.log's own format without a request: time, process, level, logger, and an empty context
LINE = re.compile(r"\d{4}-\d\d-\d\d \S+ \d+ ([A-Z]+) (\S+) \[-\] (.*)")


def test_default_log_levels_silence_all_and_raise_one(tmp_path, run_order):
    """As docs/status.rst has it; lines of others stay at their level."""
    pytest.importorskip("oslo_log", reason="needs oslo.log, as the extra test has it")
    file, config = tmp_path / "nova.log", tmp_path / "nova.conf"
    config.write_text(CONFIG % file)
    run_order(LOGGING, config, flags=["-Werror"])
    before, discard = (LINE.fullmatch(line).groups() for line in file.read_text().splitlines())
    assert before[:2] == ("INFO", "nova")
    assert discard[:2] == ("DEBUG", "stalepool.checkout")
    assert "discards, closed" in discard[2]
