"""The file of this process for ``stalepool status``: where it lies, and how it is replaced.

It lies in a directory that belongs to the user, and that no other user may write to. Its name has
the id of the process, and the namespace of the id, since containers may share a directory. Neither
eventlet nor gevent replaces ``posix`` and ``FileIO``: they do not yield, and no lock is held.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import sys
from time import time
from typing import Any, Dict, Iterator, List, Optional

from stalepool import fallback
from stalepool.clock import monotonic
from stalepool.settings import AUTO
from stalepool.stats import Counter

_posix: Any = sys.modules.get("posix")

#: the time between two writes: a multiple of what snapshot and write took, within two bounds in
#: seconds, since on a busy machine they may take long once
INTERVAL_RATIO, INTERVAL_S, LONGEST_INTERVAL_S = 1000, 5.0, 60.0

written: Optional[str] = None  #: the path of the file, once it is written
_chosen: Optional[str] = AUTO
_writes = Counter()


def directories(chosen: str, user: int) -> List[str]:
    """Name the directories that ``status_dir`` allows for a user's files, the best one first."""
    shared = "/dev/shm"  # noqa: S108  # the user's own directory in it is checked
    bases = ("/run/user/%d" % user, shared) if chosen == AUTO else (chosen.rstrip("/"),)
    return ["%s/stalepool-%d" % (base, user) for base in bases]


@contextlib.contextmanager
def open_directory(path: str, user: int) -> Iterator[int]:
    """Open a directory that nobody but this user and root may write to, for the block.

    :raises OSError: it is not there, is a link, or others may write to it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = _posix.open(path, flags)
    try:
        status = _posix.fstat(directory)
        if status.st_uid != user or status.st_mode & 0o022:
            why = "belongs to, or may be written to by, another user"
            raise PermissionError(errno.EPERM, why, path)
        yield directory
    finally:
        _posix.close(directory)


def name_of(pid: int, namespace: int) -> str:
    """Return the name of a process's file; ``namespace`` is the inode of its id's."""
    return "%d-%d.json" % (pid, namespace)


def start_ticks(stat: bytes) -> int:
    """Return when a process was started, from its ``/proc/PID/stat``: proc(5), field 22."""
    return int(stat.rpartition(b")")[2].split()[19])


@fallback.guarded("status_failed", catches_foreign=True)
def write(now: Dict[str, Any], began: float) -> Optional[float]:
    """Replace the file; returns the monotonic time of the next write, None if it failed."""
    global _chosen
    if now["settings"]:  # there are none once it is uninstalled
        _chosen = now["settings"]["status_dir"]["value"]
    chosen = _chosen
    if chosen is None or not os.path.isdir("/proc/self/ns"):
        delete()
        return float("inf")
    user = _posix.geteuid()
    try:
        paths = directories(chosen, user)
        path = next((p for p in paths if os.path.isdir(os.path.dirname(p))), paths[-1])
        with contextlib.suppress(FileExistsError):
            _posix.mkdir(path, 0o700)
        with open_directory(path, user) as directory:
            if written is None:
                sweep(directory)
            _replace_in(directory, path, now)
    except OSError as error:
        # a program without logging prints a WARNING on stderr: not if nobody asked for the file
        level = "INFO" if chosen == AUTO else "WARNING"
        fallback.fall_back("status_failed", error, level=level)
        return None
    interval_s = max(INTERVAL_S, INTERVAL_RATIO * (monotonic() - began))
    return monotonic() + min(interval_s, LONGEST_INTERVAL_S)


def sweep(directory: int) -> None:
    """Delete the files of processes of this namespace that were killed, or ended by os._exit().

    :param directory: the descriptor of :func:`open_directory`.
    """
    own = str(_posix.stat("/proc/self/ns/pid").st_ino)
    for name in _posix.listdir(directory):
        pid, _, rest = name.partition("-")
        if pid.isdecimal() and rest.partition(".")[0] == own and _is_gone(int(pid)):
            with contextlib.suppress(FileNotFoundError):  # another process sweeps, too
                _posix.unlink(name, dir_fd=directory)


def _is_gone(pid: int) -> bool:
    try:
        _posix.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, ProcessLookupError)
    return False


def _replace_in(directory: int, path: str, now: Dict[str, Any]) -> None:
    global written
    name = name_of(now["pid"], _posix.stat("/proc/self/ns/pid").st_ino)
    with io.FileIO("/proc/self/stat") as stat:
        now = {"written_at": time(), "start_ticks": start_ticks(stat.read()), **now}
    data = json.dumps(now).encode()
    temporary = "%s.%d" % (name, _writes.tick())  # two threads may be here
    create = functools.partial(_posix.open, mode=0o600, dir_fd=directory)
    try:
        with io.FileIO(temporary, "x", opener=create) as file:  # O_EXCL: follows no link; O_CLOEXEC
            while data:
                data = data[file.write(data) :]
        _posix.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:  # a signal handler's exception may have ended it before it was replaced
        with contextlib.suppress(OSError):
            _posix.unlink(temporary, dir_fd=directory)
    replaced = "%s/%s" % (path, name)
    if written != replaced:
        delete()
    written = replaced


@fallback.guarded("status_failed", catches_foreign=True)
def delete() -> None:
    """Delete the file, if there is one."""
    global written
    path, written = written, None
    if path is not None:
        with contextlib.suppress(OSError):
            _posix.unlink(path)
