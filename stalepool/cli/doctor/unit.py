"""Check the settings in an environment file or a systemd unit; nothing is started."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from stalepool.cli.doctor import questions
from stalepool.cli.doctor.questions import ERROR, OK, WARNING, Finding
from stalepool.cli.inject import INJECT_DIR
from stalepool.settings import PREFIX, Settings, SettingsError


def examine(path: Path) -> List[Finding]:
    """Judge the ``STALEPOOL`` settings of a file, and of those that a unit names.

    :param path: lines of ``NAME=value``, as for ``EnvironmentFile=``, or a unit with
        ``Environment=``.
    :raises OSError: it cannot be read; UnicodeDecodeError: it is no text.
    """
    environ, commands, findings = _read(path)
    return [*findings, *_settings(environ), *_start(environ, commands)]


def _settings(environ: Dict[str, str]) -> Iterator[Finding]:
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    try:
        settings: Any = Settings.from_environ(ours)
        yield Finding("settings", OK, " ".join("%s=%s" % i for i in ours.items()) or "the defaults")
    except SettingsError as error:
        settings = str(error)
    for level, says, remedy in questions.settings({"settings": settings}):
        if level != OK:
            yield Finding("settings", level, says, remedy)


def _start(environ: Dict[str, str], commands: List[str]) -> Iterator[Finding]:
    """Find what in the file switches stalepool on."""
    switch, path = environ.get("STALEPOOL"), environ.get("PYTHONPATH", "")
    if switch not in (None, "0", "", "1"):
        remedy = "Write STALEPOOL=1: no other value switches it on."
        yield Finding("start", WARNING, "STALEPOOL=%s does nothing" % switch, remedy)
    elif switch == "1":
        yield Finding("start", OK, "STALEPOOL=1, where pip has installed stalepool")
    elif any("stalepool run " in command for command in commands):
        yield Finding("start", OK, "by stalepool run")
    elif INJECT_DIR.parts[-2:] in (Path(p).parts[-2:] for p in path.split(":")):
        yield Finding("start", OK, "by PYTHONPATH")
    else:
        remedy = "Add STALEPOOL=1, unless the program itself imports stalepool."
        yield Finding("start", WARNING, "nothing in it switches stalepool on", remedy)


def _read(path: Path) -> Tuple[Dict[str, str], List[str], List[Finding]]:
    """Return variables, commands, and findings about wrong lines; see systemd.exec(5)."""
    environ: Dict[str, str] = {}
    commands: List[str] = []
    findings: List[Finding] = []
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    is_unit = any(line.strip() == "[Service]" for line in text.splitlines())
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        name, equals, value = line.partition("=")
        if not line or line[0] in "#;[":
            continue
        try:
            if is_unit and name == "EnvironmentFile":
                _include(value, environ, findings)
            elif is_unit and name == "ExecStart":
                commands.append(value)
            elif is_unit and name != "Environment":
                continue
            elif not equals:
                raise ValueError("it is not NAME=value")
            elif is_unit:
                environ.update(word.partition("=")[::2] for word in shlex.split(value))
            else:
                environ[name.split()[-1]] = " ".join(shlex.split(value))  # "export NAME", too
        except ValueError as error:
            says = "%s, line %d: %s" % (path, number, error)
            findings.append(Finding("file", ERROR, says, "Correct the line."))
    return environ, commands, findings


def _include(value: str, environ: Dict[str, str], findings: List[Finding]) -> None:
    """Read a file that a unit names; after a ``-`` it may be missing."""
    path = Path(value.lstrip("-"))
    try:
        more, _, problems = _read(path)
    except (OSError, UnicodeDecodeError) as error:
        if not (value.startswith("-") and isinstance(error, FileNotFoundError)):
            says = "%s cannot be read: %s" % (path, getattr(error, "strerror", None) or error)
            findings.append(Finding("file", WARNING, says, "Check that file separately."))
        return
    environ.update(more)
    findings += problems
