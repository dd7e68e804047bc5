"""What the tests of the command line share."""

import signal
import subprocess

import pytest

from stalepool.__main__ import main


@pytest.fixture(autouse=True)
def signals_of_a_terminal():
    """Start children as a terminal does: nohup and ``&`` have the suite ignore some signals."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    ignored = [number for number in usual if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def stalepool_here(capfd):
    """``stalepool WORDS`` in this process, with the result of :func:`subprocess.run`."""

    def stalepool_here(*words):
        try:
            status = main(list(map(str, words)))
        except SystemExit as ended:
            status = int(str(ended.code))
        return subprocess.CompletedProcess(words, status, *capfd.readouterr())

    return stalepool_here
