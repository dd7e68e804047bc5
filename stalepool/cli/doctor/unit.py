"""Check the settings in an environment file or a systemd unit; nothing is started."""

from __future__ import annotations

import glob
import re
import shlex
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from stalepool.cli.doctor import questions
from stalepool.cli.doctor.questions import ERROR, OK, WARNING, Finding
from stalepool.cli.inject import INJECT_DIR
from stalepool.settings import PREFIX, Settings, SettingsError

#: the names in a unit that are read: systemd.exec(5), systemd.service(5)
_OF_A_UNIT = ("Environment", "EnvironmentFile", "UnsetEnvironment", "ExecStart")

#: a word of a command by which env(1) sets one of the variables that are judged
_is_set_by_env = re.compile("(STALEPOOL(_[A-Z_]+)?|PYTHONPATH)=").match

LARGEST_FILE = 1 << 20  #: so many characters are read: /dev/zero has no end


def examine(path: Path) -> List[Finding]:
    """Judge the ``STALEPOOL`` settings of a file, and of those that a unit names.

    :param path: lines of ``NAME=value``, as for ``EnvironmentFile=``, or a unit with
        ``Environment=``.
    :raises OSError: it cannot be read; UnicodeDecodeError: it is no text.
    """
    environ, words, findings = _read(path, may_be_a_unit=True)
    return [*findings, *_settings(environ), *_start(environ, words)]


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


def _start(environ: Dict[str, str], words: List[str]) -> Iterator[Finding]:
    """Find what in the file, or in the words of its commands, switches stalepool on."""
    command = " ".join(words)
    switch, path = environ.get("STALEPOOL"), environ.get("PYTHONPATH", "")
    if switch not in (None, "0", "", "1"):
        remedy = "Write STALEPOOL=1: no other value switches it on."
        yield Finding("start", WARNING, "STALEPOOL=%s does nothing" % switch, remedy)
    elif switch == "1":
        yield Finding("start", OK, "by STALEPOOL=1, if pip has installed stalepool there")
    elif "stalepool run " in command:
        yield Finding("start", OK, "by stalepool run")
    elif INJECT_DIR.parts[-2:] in (Path(p).parts[-2:] for p in path.split(":")):
        yield Finding("start", OK, "by PYTHONPATH")
    else:
        remedy = "Add STALEPOOL=1, unless the program itself imports stalepool."
        yield Finding("start", WARNING, "nothing in it switches stalepool on", remedy)


def _read(path: Path, may_be_a_unit: bool) -> Tuple[Dict[str, str], List[str], List[Finding]]:
    """Return variables, the words of commands, and findings about wrong lines."""
    #: by name in a unit, where an empty value takes back what was there before
    given: Dict[str, List[str]] = {name: [] for name in _OF_A_UNIT}
    environ: Dict[str, str] = {}
    findings: List[Finding] = []
    with path.open(encoding="utf-8") as file:
        text = file.read(LARGEST_FILE).replace("\\\n", " ")
    # the second is of podman's units
    sections = ("[Service]", "[Container]") if may_be_a_unit else ()
    is_unit = any(line.strip() in sections for line in text.splitlines())
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        name, equals, value = map(str.strip, line.partition("="))
        if not line or line[0] in "#;[" or (is_unit and name not in given):
            continue
        try:
            if not name or not equals:
                raise ValueError("it is not NAME=value")
            words = _words(value, is_lenient=name == "ExecStart")
            if is_unit:
                given[name] = [*given[name], *words] if words else []
            else:
                environ[name.split()[-1]] = " ".join(words)  # "export NAME", too
        except ValueError as error:
            says = "%s, line %d: %s" % (path, number, error)
            findings.append(Finding("file", ERROR, says, "Correct the line."))
    if is_unit:
        environ = _variables(given, findings)
    return environ, given["ExecStart"], findings


def _words(value: str, is_lenient: bool) -> List[str]:
    """Split as systemd does; a lenient one by spaces alone, if a quote in it is not closed."""
    try:
        return shlex.split(value)
    except ValueError:
        if not is_lenient:
            raise
        return value.split()


def _variables(given: Dict[str, List[str]], findings: List[Finding]) -> Dict[str, str]:
    """Return the variables of a unit: its own, of its files, less those it takes out; env(1)'s."""
    environ = dict(word.partition("=")[::2] for word in given["Environment"])
    for file_or_pattern in given["EnvironmentFile"]:
        _include(file_or_pattern, environ, findings)
    for word in given["UnsetEnvironment"]:
        name, equals, value = word.partition("=")
        if not equals or environ.get(name) == value:
            environ.pop(name, None)
    by_env = [word for word in given["ExecStart"] if _is_set_by_env(word)]
    environ.update(word.partition("=")[::2] for word in by_env)
    return environ


def _include(value: str, environ: Dict[str, str], findings: List[Finding]) -> None:
    """Read the files that a unit names, perhaps by a pattern; after a ``-`` they may be missing."""
    name = value[1:] if value.startswith("-") else value
    for path in sorted(glob.glob(name)) or [name]:
        try:
            more, _, problems = _read(Path(path), may_be_a_unit=False)
        except (OSError, UnicodeDecodeError) as error:
            if name == value or not isinstance(error, FileNotFoundError):
                says = "%s cannot be read: %s" % (path, getattr(error, "strerror", None) or error)
                findings.append(Finding("file", WARNING, says, "Check that file separately."))
            continue
        environ.update(more)
        findings += problems
