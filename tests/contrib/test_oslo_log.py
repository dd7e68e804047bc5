"""Our lines in the log file of a service with the real oslo.log: its format, and its levels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List

import pytest

from fresh import run

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

#: oslo.log's own format without a request: time, process, level, logger, and an empty context
LINE = re.compile(r"\d{4}-\d\d-\d\d \S+ \d+ (?P<level>[A-Z]+) (?P<logger>\S+) \[-\] (?P<said>.*)")

APPENDED = """
[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys = context
[logger_root]
level = INFO
handlers = file
[handler_file]
class = FileHandler
formatter = context
args = ({file!r},)
[formatter_context]
class = oslo_log.formatters.ContextFormatter
"""


def logged(directory: Path, *options: str) -> List[List[str]]:
    """What stands in the log file: level, logger, and the beginning of what is said."""
    file, config = directory / "nova.log", directory / "nova.conf"
    config.write_text("\n".join(["[DEFAULT]", "use_stderr = false", *options]))
    run(SERVICE, config)
    found = [LINE.fullmatch(line) for line in file.read_text().splitlines()]
    assert all(found), file.read_text()
    return [[each["level"], each["logger"], each["said"]] for each in found if each is not None]


def test_default_log_levels_silence_all_and_raise_one(tmp_path: Path) -> None:
    """As docs/status.rst has it; lines of others stay at their level."""
    levels = "default_log_levels = urllib3=WARN,stalepool=WARN,stalepool.checkout=DEBUG"
    before, discard = logged(tmp_path, "log_file = %s/nova.log" % tmp_path, levels)
    assert before[1] == "nova"
    assert discard[:2] == ["DEBUG", "stalepool.checkout"]
    assert "discards, closed" in discard[2]


def test_a_configuration_that_is_appended(tmp_path: Path) -> None:
    """It names no logger of ours, and comes after these were made."""
    (tmp_path / "logging.conf").write_text(APPENDED.format(file=str(tmp_path / "nova.log")))
    lines = logged(tmp_path, "log_config_append = %s/logging.conf" % tmp_path)
    assert [logger for _, logger, _ in lines] == ["nova", "stalepool.status"]
