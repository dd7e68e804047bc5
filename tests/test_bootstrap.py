"""Start-up at ``import stalepool``: what is registered, and what is said on stderr."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List, NamedTuple

import pytest

from breaks import breaks
from stalepool import bootstrap
from stalepool.settings import Settings

COMMAND, SERVICE = ["/usr/bin/stalepool", "status"], ["/usr/bin/nova-api"]
WRONG = {"STALEPOOL_MODE": "activ"}
WHY = "STALEPOOL_MODE='activ' is not accepted: it takes active or audit"
CONTRADICT = {"STALEPOOL_REPLAY": "off", "STALEPOOL_SILENCE_S": "3"}


class Start(NamedTuple):
    """``done``: the function of the import hook that is called, and what it is given."""

    environ: Dict[str, str]
    done: List[Any]
    said: str = ""
    argv: List[str] = SERVICE


STARTS = {
    "no variable": Start({}, [("register",)]),
    "a variable": Start({"STALEPOOL_MODE": "audit"}, [("register", Settings(mode="audit"))]),
    "a wrong one": Start(
        WRONG, [("register", WHY)], "stalepool: not active in this process: " + WHY
    ),
    "a wrong one, and the command": Start(WRONG, [], argv=COMMAND),
    "the kill switch": Start({"STALEPOOL_ENABLED": "0"}, [("unregister", "STALEPOOL_ENABLED=0")]),
    "the kill switch beside a wrong one": Start(
        {**WRONG, "STALEPOOL_ENABLED": "0"}, [("unregister", "STALEPOOL_ENABLED=0")]
    ),
    "a contradiction": Start(
        CONTRADICT,
        [("register", Settings(replay="off", silence_s=3))],
        "stalepool: settings contradict one another: replay=off: silence_s and replay_within_s "
        "do nothing",
    ),
    "a contradiction, and the command": Start(
        CONTRADICT, [("register", Settings(replay="off", silence_s=3))], argv=COMMAND
    ),
}


@pytest.mark.parametrize("name", STARTS)
def test_start(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    start, done = STARTS[name], []  # type: Start, List[Any]

    def noting(function: str) -> Any:
        return lambda *args, **options: done.append((function, *args, *options.values()))

    monkeypatch.setattr(sys, "argv", start.argv)
    monkeypatch.setattr(os, "environ", start.environ)
    with breaks("register", by=noting("register")), breaks("unregister", by=noting("unregister")):
        bootstrap.start()
    assert done == start.done
    assert capsys.readouterr().err == (start.said and start.said + "\n")


def test_what_fails_is_said_and_not_raised(capsys: Any) -> None:
    with breaks("register"):
        bootstrap.start()
    assert "not active in this process: RuntimeError('broken')" in capsys.readouterr().err


#: argv as it is while Python starts; the whole line, None before Python 3.10; is it the command?
LINES = [
    (COMMAND, None, True),
    (SERVICE, None, False),
    (["-c", "x"], ["python", "-c", "pass", "x"], False),
    (["-m", "status"], ["python", "-m", "stalepool", "status"], True),
    (["-m", "status"], ["python", "-mstalepool", "status"], True),
    (["-m", "8080"], ["python", "-m", "http.server", "8080"], False),
    (["-m", "-m", "stalepool"], ["python", "-m", "it", "-m", "stalepool"], False),
    (["-m", "8080"], [], False),
    (["-m", "8080"], None, False),
    ([], None, False),
    (None, None, False),  # as in a program that embeds Python
]


@pytest.mark.parametrize(("argv", "line", "is_ours"), LINES)
def test_the_command_is_known(argv: Any, line: Any, is_ours: bool, monkeypatch: Any) -> None:
    for name, words in {"argv": argv, "orig_argv": line}.items():
        monkeypatch.setattr(sys, name, words, raising=False)
        if words is None:
            monkeypatch.delattr(sys, name)
    assert bootstrap.is_the_command() is is_ours


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_without_a_stderr_nothing_is_raised(stderr: Any, monkeypatch: Any, tmp_path: Any) -> None:
    if stderr:
        with open(str(tmp_path / "closed"), "w") as stderr:
            pass
    monkeypatch.setattr(sys, "stderr", stderr)
    bootstrap.say("nobody hears this")
