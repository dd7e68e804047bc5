"""Children of the demo: started with their sockets, logged, and ended with it.

Every listening socket is bound here, on a port that the kernel picks, and is
inherited by the child that serves it. All addresses are known before any
process runs, no port can be lost to somebody else, and a request that comes
before its server is ready waits in the backlog. A child that dies takes its
socket with it, so whoever calls it is refused rather than kept waiting.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Dict, List, Mapping, Optional, Sequence, Tuple, Type

import stalepool
from stalepool.cli.demo import start
from stalepool.cli.demo.follow import PARENT

Address = Tuple[str, int]

_START = os.path.realpath(start.__file__)
_PACKAGE = os.path.realpath(stalepool.__file__)
_LAST_WORDS = 2000
_DYING_S = 1.0


class DemoError(Exception):
    """The demo itself cannot go on; the text is for the operator."""


def listener(backlog: int = 128) -> socket.socket:
    """A listening socket on a free loopback port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(backlog)
    return sock


def address_of(sock: socket.socket) -> Address:
    """Host and port that a bound socket of ours has."""
    host, port = sock.getsockname()
    return host, port


def to_text(address: Address) -> str:
    """``host:port``, as the children take it on their command lines."""
    return "{}:{}".format(*address)


def to_address(text: str) -> Address:
    """The reverse of :func:`to_text`."""
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Processes:
    """The children of one demo: a context manager that leaves none behind."""

    def __init__(self, logs: Path) -> None:
        """Log to this directory, an absolute path."""
        self.logs = logs
        self._running: List[Tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        for _, process in self._running:
            process.kill()
        for _, process in self._running:
            _bury(process)

    def start(
        self,
        label: str,
        module: str,
        *arguments: str,
        serves: Sequence[socket.socket] = (),
        settings: Optional[Mapping[str, str]] = None,
        talks: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start ``stalepool.cli.demo.<module>`` as a program, with the given arguments.

        It runs in the directory of the logs, wherever the demo was started, and imports nothing
        from there.

        :param label: its name in messages and of its log file.
        :param serves: sockets it inherits; ours are closed here.
        :param settings: the ``STALEPOOL_*`` variables it sees; None: stalepool stays off.
        :param talks: give it pipes for stdin and stdout, instead of nothing and its log.
        """
        name = f"stalepool.cli.demo.{module}"
        command = [sys.executable, _START, _PACKAGE, name, *arguments]
        with open(self.log_of(label), "wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                env=_environment(settings),
                cwd=str(self.logs),
                pass_fds=[sock.fileno() for sock in serves],
                # Ctrl-C is for the demo; it ends its children itself.
                start_new_session=True,
            )
        self._running.append((label, process))
        for sock in serves:
            sock.close()
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a child that is no longer needed, and forget it."""
        process.kill()
        _bury(process)
        self._running = [entry for entry in self._running if entry[1] is not process]

    def log_of(self, label: str) -> Path:
        """Where the child of this label logs to."""
        return self.logs / f"{label}.log"

    def last_words(self, label: str) -> str:
        """The end of a child's log."""
        return self.log_of(label).read_text(errors="replace")[-_LAST_WORDS:].strip()

    def explain(self, what: str) -> DemoError:
        """An error that says which child has died, with the end of its log, if one has."""
        give_up = time.monotonic() + _DYING_S  # its sockets are gone a little before it is
        while time.monotonic() < give_up:
            for label, process in self._running:
                if process.poll() is not None:
                    return DemoError(
                        f"{what}: the process {label} has ended with status"
                        f" {process.returncode}; its last words:\n{self.last_words(label)}"
                    )
            time.sleep(0.05)
        return DemoError(what)


def _bury(process: subprocess.Popen[bytes]) -> None:
    """Wait for a killed child, and close the pipes to it."""
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what could not be written before
                pipe.close()


def _environment(settings: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """The caller's environment without what would change the demo: proxies, and settings."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STALEPOOL_")
        and not name.lower().endswith("_proxy")
        and name != "PYTHONWARNINGS"  # as errors, eventlet's own about its age would end nova-api
    }
    # what is relative on it is relative to the demo's working directory, not to a child's
    path = environment.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path if entry)
    environment[PARENT] = str(os.getpid())
    environment.update({"STALEPOOL_ENABLED": "0"} if settings is None else settings)
    return environment


def read_line(pipe: Optional[IO[bytes]]) -> str:
    """The next line a child has written, empty if it has ended."""
    assert pipe is not None
    return pipe.readline().decode().strip()
