"""Signals that end a command."""

import signal

import pytest

from stalepool.cli.signals import ended_by_signals, held_back


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_command_is_ended_and_what_is_ignored_or_handled_stays(number, status):
    with pytest.raises(SystemExit, match=str(status)), ended_by_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) == signal.SIG_DFL
    came = []
    for handler in signal.SIG_IGN, lambda *_: came.append(number):
        signal.signal(number, handler)
        with ended_by_signals():
            signal.raise_signal(number)
    signal.signal(number, signal.SIG_DFL)
    assert came == [number]


def test_a_signal_that_is_held_back_takes_effect_at_the_end():
    done = []
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert done == [1]
