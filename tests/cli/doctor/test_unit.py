"""An environment file, or a unit of systemd."""

import re

import pytest

from stalepool.cli.doctor.command import LEVELS

UNIT = "[Unit]\nDescription=x\n[Service]\n%s\nExecStart=/bin/x\n"

NOT_ON = "warning start: nothing in it switches stalepool on"

#: text -> a finding, none of the others is worse
FILES = {
    "STALEPOOL=1\n# a note\n\nexport STALEPOOL_MODE='audit'": "ok settings: STALEPOOL_MODE=audit",
    "STALEPOOL=1\nPATH=/bin:a b\nSTALEPOOLS=x": "ok settings: the defaults",
    "STALEPOOL=1\nSTALEPOOL_ENABLED=0": "warning settings: STALEPOOL_ENABLED is off",
    "STALEPOOL=1\nSTALEPOOL_REPLAY=off\nSTALEPOOL_SILENCE_S=9": "warning settings: replay=off: ",
    "STALEPOOL=yes": "warning start: STALEPOOL=yes does nothing",
    "STALEPOOL_MODE=audit": NOT_ON,
    "=1": "error file: {place}/file, line 1: it is not NAME=value",
    "PYTHONPATH=/a:/venv/lib/stalepool/inject": "ok start: by PYTHONPATH",
    "hello": "error file: {place}/file, line 1: it is not NAME=value",
    "STALEPOOL='1": "error file: {place}/file, line 1: No closing quotation",
    UNIT % 'Environment="STALEPOOL=1" \\\n STALEPOOL_MODE=x': "error settings: STALEPOOL_MODE='x'",
    UNIT % "User=nova\nExecStart=/bin/stalepool run /bin/x": "ok start: by stalepool run",
    UNIT % "EnvironmentFile={place}/more": "error settings: STALEPOOL_MODE='activ' is not accepted",
    UNIT % "EnvironmentFile=/no/such": "warning file: /no/such cannot be read: No such file",
    UNIT % "EnvironmentFile=-/no/such\nEnvironment=STALEPOOL=1": "ok start: by STALEPOOL=1",
    UNIT % "ExecStart=/bin/x it's\nEnvironment = STALEPOOL=1": "ok start: by STALEPOOL=1",
    UNIT % "ExecStart = /usr/bin/env STALEPOOL=1 /bin/x": "ok start: by STALEPOOL=1",
    UNIT % "ExecStart=/usr/bin/env STALEPOOL=1 STALEPOOL_MODE=x /bin/x": "error settings: STALE",
    UNIT % "ExecStart=/usr/bin/env STALEPOOL=1 STALEPOOL_ENABLED=0 x": "warning settings: STALE",
    UNIT
    % "ExecStart=env 'STALEPOOL=1' STALEPOOL_MODE=\"audit\" x": "ok settings: STALEPOOL_MODE=audit",
    UNIT % "ExecStart=env PYTHONPATH=/venv/lib/stalepool/inject /bin/x": "ok start: by PYTHONPATH",
    # whatever comes after it in the unit
    UNIT % "EnvironmentFile={place}/m*\nEnvironment=STALEPOOL_MODE=audit": "error settings: STALE",
    UNIT
    % "Environment=STALEPOOL=x\nEnvironment=\nEnvironment=STALEPOOL=1": "ok start: by STALEPOOL=1",
    UNIT % "Environment=STALEPOOL=1 B=2\nUnsetEnvironment=STALEPOOL B=3": NOT_ON,
    UNIT % "Environment=STALEPOOL=1\nUnsetEnvironment=STALEPOOL=0": "ok start: by STALEPOOL=1",
    UNIT % "EnvironmentFile={place}/file\nEnvironment=STALEPOOL=1": "ok start: by STALEPOOL=1",
    "[Container]\nEnvironment=A=b STALEPOOL=1": "ok start: by STALEPOOL=1",
    UNIT % "Environment='STALEPOOL=1": "error file: {place}/file, line 4: No closing quotation",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_of_settings(text, tmp_path, doctor):
    (tmp_path / "more").write_text("STALEPOOL=1\nSTALEPOOL_MODE=activ\n")
    (tmp_path / "file").write_text(text.format(place=tmp_path))
    found = doctor("--env", tmp_path / "file")
    assert "\n" + FILES[text].format(place=tmp_path) in found
    worse = LEVELS[LEVELS.index(FILES[text].partition(" ")[0]) + 1 :]
    assert not re.search("^(%s) " % "|".join(worse or ["-"]), found, re.MULTILINE)
