"""Our lines in the log file of a service with the real oslo.log: its format, and its levels."""

import re

import pytest

from worlds import WITH_TESTS

pytest.importorskip("oslo_log", reason="needs oslo.log, as the extra test has it")

SERVICE = """
import sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from oslo_config import cfg
    from oslo_log import log
from traffic import meet_a_dead_connection
conf = cfg.ConfigOpts()
log.register_options(conf)
conf(["--config-file", sys.argv[1]])
log.setup(conf, "nova")
log.getLogger("nova").info("before")
meet_a_dead_connection()
"""
CONFIG = """
[DEFAULT]
use_stderr = false
log_file = %s
default_log_levels = urllib3=WARN,stalepool=WARN,stalepool.checkout=DEBUG
"""

#: oslo.log's own format without a request: time, process, level, logger, and an empty context
LINE = re.compile(r"\d{4}-\d\d-\d\d \S+ \d+ ([A-Z]+) (\S+) \[-\] (.*)")


def test_default_log_levels_silence_all_and_raise_one(tmp_path, run_python):
    """As docs/status.rst has it; lines of others stay at their level."""
    file, config = tmp_path / "nova.log", tmp_path / "nova.conf"
    config.write_text(CONFIG % file)
    run_python(SERVICE, config, env=WITH_TESTS, flags=["-Werror"])
    before, discard = (LINE.fullmatch(line).groups() for line in file.read_text().splitlines())
    assert before[:2] == ("INFO", "nova")
    assert discard[:2] == ("DEBUG", "stalepool.checkout")
    assert "discards, closed" in discard[2]
