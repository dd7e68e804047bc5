"""What the tests of the command line share."""

from __future__ import annotations

import signal
import subprocess
from typing import Any, Callable, Iterator

import pytest

from stalepool.cli.main import main


@pytest.fixture(autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """Start children as a terminal does: nohup and ``&`` have the suite ignore some signals."""
    ignored = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def stalepool_here(capfd: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``stalepool WORDS`` in this process, with the result of :func:`subprocess.run`."""

    def stalepool_here(*words: object) -> subprocess.CompletedProcess[str]:
        try:
            status = main(list(map(str, words)))
        except SystemExit as ended:
            status = int(str(ended.code))
        return subprocess.CompletedProcess(words, status, *capfd.readouterr())

    return stalepool_here
