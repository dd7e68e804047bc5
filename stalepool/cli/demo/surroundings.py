"""What the demo is started in: signals, standard streams that may be closed, a place for logs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Iterator, Optional

from stalepool.cli.demo.processes import DemoError

STDERR = 2


class Ended(BaseException):
    """SIGTERM or SIGHUP has come; a BaseException, as KeyboardInterrupt is."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class UnusableDirectoryError(Exception):
    """The directory for the logs cannot be used."""


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise :class:`Ended`, unless they are ignored or handled already."""

    def end(number: int, _: object) -> None:
        raise Ended(number)

    handled = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def logs_in(keep: Optional[str]) -> Iterator[Path]:
    """The directory for the logs, absolute: the given one, or one that is removed at the end.

    :raises UnusableDirectoryError: the given one is "", cannot be made, or not be written to.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="stalepool-demo-") as directory:
            yield Path(directory)
        return
    if not keep:
        raise UnusableDirectoryError("DIR: it must not be empty")
    try:
        path = Path(keep).resolve()
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=str(path)).close()
    except OSError as error:
        raise UnusableDirectoryError(f"{keep}: {error.strerror}") from error
    yield path


def open_closed_streams() -> None:
    """Let /dev/null stand in for standard streams that are closed.

    A descriptor 0, 1 or 2 that is free would go to the next socket, and Python
    has None for a stream that was closed when it started.
    """
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > STDERR:
            os.close(fd)
            break
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def say(text: str) -> None:
    """Write to stdout, in ASCII. Whoever reads it may be gone: then all output goes nowhere.

    :raises DemoError: it cannot be written for another reason, a full disk for one.
    """
    try:
        print(text.encode("ascii", "backslashreplace").decode())
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise DemoError(f"cannot write the result: {error.strerror}") from error


def complain(text: str, status: int) -> int:
    """Write to stderr, whoever reads it; returns the exit status it was given."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
    return status
