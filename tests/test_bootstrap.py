"""Start-up at ``import stalepool``: what is registered, and what is said on stderr."""

import io
import os
import sys

import pytest

from breaks import breaks
from stalepool import bootstrap
from stalepool.settings import Settings

COMMAND, SERVICE = ["/usr/bin/stalepool", "status"], ["/usr/bin/nova-api"]
WRONG = {"STALEPOOL_MODE": "activ"}
WHY = "STALEPOOL_MODE='activ' is not accepted: it takes active or audit"
OFF = {**WRONG, "STALEPOOL_ENABLED": "0"}
CONTRADICT = {"STALEPOOL_REPLAY": "off", "STALEPOOL_SILENCE_S": "3"}
CONTRARY = "settings contradict one another: replay=off: silence_s and replay_within_s do nothing"

#: the variables -> whether the import hook is registered, what it is told, and what is said
STARTS = {
    "no variable": ({}, True, (), ""),
    "a variable": ({"STALEPOOL_MODE": "audit"}, True, (Settings(mode="audit"),), ""),
    "a wrong one": (WRONG, True, (WHY,), "not active in this process: " + WHY),
    "the kill switch beside a wrong one": (OFF, False, ("STALEPOOL_ENABLED=0",), ""),
    "a contradiction": (CONTRADICT, True, (Settings(replay="off", silence_s=3),), CONTRARY),
}


@pytest.mark.parametrize("argv", [SERVICE, COMMAND], ids=["a service", "the command"])
@pytest.mark.parametrize("name", STARTS)
def test_start(name, argv, monkeypatch, capsys):
    """The command says by itself what is wrong, if it needs settings."""
    environ, is_on, given, said = STARTS[name]
    told = []
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(os, "environ", environ)
    with breaks("register", by=lambda *args, **more: told.append((True, *args, *more.values()))):
        with breaks("unregister", by=lambda why: told.append((False, why))):
            bootstrap.start()
    is_left = argv is COMMAND and name == "a wrong one"
    assert told == ([] if is_left else [(is_on, *given)])
    assert capsys.readouterr().err == ("stalepool: %s\n" % said if said and argv is SERVICE else "")


def test_what_fails_is_said_if_there_is_a_stderr_and_not_raised(monkeypatch):
    closed, said = io.StringIO(), io.StringIO()
    closed.close()
    for stderr in None, closed, said:
        monkeypatch.setattr(sys, "stderr", stderr)
        with breaks("register"):
            bootstrap.start()
    assert "not active in this process: RuntimeError('broken')" in said.getvalue()


#: argv as it is while Python starts; the whole line, None before Python 3.10; is it the command?
LINES = [
    (["-c", "x"], ["python", "-c", "pass", "x"], False),
    (["-m", "status"], ["python", "-m", "stalepool", "status"], True),
    (["-m", "status"], ["python", "-mstalepool", "status"], True),
    (["-m", "-m", "stalepool"], ["python", "-m", "it", "-m", "stalepool"], False),
    (["-m", "8080"], [], False),
    (["-m", "8080"], None, False),
    ([], None, False),
    (None, None, False),  # as in a program that embeds Python
]


@pytest.mark.parametrize(("argv", "line", "is_ours"), LINES)
def test_the_command_is_known(argv, line, is_ours, monkeypatch):
    for name, words in {"argv": argv, "orig_argv": line}.items():
        monkeypatch.setattr(sys, name, words, raising=False)
        if words is None:
            monkeypatch.delattr(sys, name)
    assert bootstrap.is_the_command() is is_ours
