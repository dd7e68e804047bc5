"""The status of this process: a snapshot, a file for ``stalepool status``, and lines in the log.

No thread and no port: when something is due, the next answer that arrives calls this module, so
nothing happens between a check and its request. The functions are those of ``posix``, which
eventlet does not replace: on a regular file they do not yield, and no lock is held.

The file lies in a directory that belongs to the user, and that no other user may write to. Its name
has the id of the process, and the namespace of the id, since containers may share a directory.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import logging
import os
import sys
from time import time
from typing import Any, Callable, Dict, List, Optional

from stalepool import fallback, runtime, stats, summary
from stalepool.clock import monotonic
from stalepool.settings import AUTO
from stalepool.stats import Counter

_posix: Any = sys.modules.get("posix")
_logger = logging.getLogger("stalepool.status")

#: the packages whose versions are shown, if they are loaded
_SHOWN = ("stalepool", "urllib3", "wrapt", "eventlet", "gevent", "requests")

#: least time between two writes: in seconds, and as a multiple of what snapshot and write took
INTERVAL_S, INTERVAL_RATIO = 5.0, 1000
AFTER_FAILURE_S = 300.0

#: monotonic time at which the next answer is to call :func:`pass_by`
due_at = 0.0

#: returns what is patched; set by the import hook, which must not be imported here
describe_hook: Callable[[], Dict[str, Any]] = dict

_file_due_at = 0.0
_since = time()  # of the process, or of its fork: all counters began then
_written: Optional[str] = None
_chosen: Optional[str] = AUTO
_writes = Counter()
_has_said = False
_summarized: Dict[str, Any] = {}
_summarized_at = monotonic()


def snapshot(hook: Dict[str, Any]) -> Dict[str, Any]:
    """Return all that is known of this process, as plain data; see ``control.snapshot``.

    :param hook: what is patched, from the import hook.
    """
    current = runtime.current
    return {
        "versions": _versions(),
        **hook,
        "mode": current.mode if hook["installed"] and current is not None else None,
        "pid": os.getpid(),
        "since": _since,
        **stats.snapshot(),
        "fallbacks": fallback.counts(),
    }


def _versions() -> Dict[str, str]:
    """Return the versions of Python and of loaded packages; this does not load a lazy module."""
    found = {"python": sys.version.split()[0]}
    for name in _SHOWN:
        module = sys.modules.get(name)
        if isinstance(module, type(sys)):
            found[name] = str(object.__getattribute__(module, "__dict__").get("__version__"))
    return found


@fallback.guarded("status_failed")
def show(describe: Callable[[], Dict[str, Any]]) -> None:
    """Write the file after something was patched, could not be patched, or was unpatched."""
    global describe_hook
    if describe_hook is dict:
        atexit.register(_leave)
    describe_hook = describe
    _write_file(snapshot(describe()), monotonic())


@fallback.guarded("status_failed")
def pass_by() -> None:
    """Write what is due: the file, the line that says that the shim is active, the summary.

    Yields only inside a log handler that does. Raises nothing.
    """
    global due_at, _file_due_at, _has_said
    due_at = monotonic() + AFTER_FAILURE_S  # other threads need not do it, too
    current = runtime.current
    if current is None:  # uninstalled meanwhile
        return
    began = monotonic()  # with 512 origins, the snapshot takes 29 ms, and the write 8 ms
    now, interval_s = snapshot(describe_hook()), current.summary_s
    if monotonic() >= _file_due_at:
        _file_due_at = _write_file(now, began) or monotonic() + AFTER_FAILURE_S
    if not _has_said:
        _has_said = True
        _say_that_it_is_active(now)
    if interval_s is not None and monotonic() >= _summarized_at + interval_s:
        _summarize(now)
    due_at = _file_due_at if interval_s is None else min(_file_due_at, _summarized_at + interval_s)


# -- the log ---------------------------------------------------------------------------------------


def _say_that_it_is_active(now: Dict[str, Any]) -> None:
    fallback.log(
        *(_logger, logging.WARNING if now["unpatched"] else logging.INFO),
        "stalepool %s is active in process %d, mode %s; settings: %s; patched: %s%s",
        *(now["versions"]["stalepool"], now["pid"], now["mode"], summary.settings(now)),
        *(", ".join(now["patched"]), "".join("; not patched: %s" % x for x in now["unpatched"])),
    )


def _summarize(now: Dict[str, Any]) -> None:
    """Log what was done since the last summary, if anything was."""
    global _summarized, _summarized_at
    counted = {"totals": now["totals"], "fallbacks": now["fallbacks"]}
    seen, passed_s = summary.difference(counted, _summarized), monotonic() - _summarized_at
    if summary.has_events(seen):
        text = summary.sentence(seen, passed_s, now["mode"] == "audit")
        fallback.log(_logger, logging.INFO, "process %d %s", now["pid"], text)
    _summarized, _summarized_at = counted, monotonic()


# -- the file --------------------------------------------------------------------------------------


def directories(chosen: str, user: int) -> List[str]:
    """Name the directories that a user's status files may lie in, the best one first.

    :param chosen: the setting ``status_dir``.
    """
    shared = "/dev/shm"  # noqa: S108  # the user's own directory in it is checked
    bases = ("/run/user/%d" % user, shared) if chosen == AUTO else (chosen.rstrip("/"),)
    return ["%s/stalepool-%d" % (base, user) for base in bases]


def open_directory(path: str, user: int) -> int:
    """Return a descriptor of a directory that nobody but this user and root may write to.

    :raises OSError: it is not there, is a link, or others may write to it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory: int = _posix.open(path, flags)
    status = _posix.fstat(directory)
    if status.st_uid == user and not status.st_mode & 0o022:
        return directory
    _posix.close(directory)
    raise PermissionError(errno.EPERM, "belongs to, or may be written to by, another user", path)


def name_of(pid: int, namespace: int) -> str:
    """Return the name of a process's file.

    :param namespace: the inode of its namespace of process ids, 0 where there are none.
    """
    return "%d-%d.json" % (pid, namespace)


def start_ticks(stat: bytes) -> int:
    """Return when a process was started, from its ``/proc/PID/stat``: proc(5), field 22."""
    return int(stat.rpartition(b")")[2].split()[19])


@fallback.guarded("status_failed")
def _write_file(now: Dict[str, Any], began: float) -> Optional[float]:
    """Replace the file; returns the monotonic time of the next write, None if it failed."""
    global _chosen, _written
    if now["settings"]:  # there are none once it is uninstalled
        _chosen = now["settings"]["status_dir"]["value"]
    chosen = _chosen
    if chosen is None or not os.path.isdir("/proc/self/ns"):
        _take_away(_written)
        _written = None
        return float("inf")
    try:
        _write_into(directories(chosen, _posix.geteuid()), now)
    except OSError as error:
        # a program without logging prints a WARNING on stderr: not if nobody asked for the file
        level = logging.INFO if chosen == AUTO else logging.WARNING
        fallback.fall_back("status_failed", error, level=level)
        return None
    return monotonic() + max(INTERVAL_S, INTERVAL_RATIO * (monotonic() - began))


def _write_into(paths: List[str], now: Dict[str, Any]) -> None:
    path = next((p for p in paths if os.path.isdir(os.path.dirname(p))), paths[-1])
    with contextlib.suppress(FileExistsError):
        _posix.mkdir(path, 0o700)
    directory = open_directory(path, _posix.geteuid())
    try:
        if _written is None:
            sweep(directory)
        _replace_in(directory, path, now)
    finally:
        _posix.close(directory)


def sweep(directory: int) -> None:
    """Delete the files of processes that have ended without doing so: killed, or by os._exit().

    Those of another namespace of process ids, such as a container's, are not touched.

    :param directory: a descriptor of :func:`open_directory`.
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
    global _written
    name = name_of(now["pid"], _posix.stat("/proc/self/ns/pid").st_ino)
    stat = _posix.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ticks = start_ticks(_posix.read(stat, 4096))
    finally:
        _posix.close(stat)
    data = json.dumps({"written_at": time(), "start_ticks": ticks, **now}).encode()
    temporary = "%s.%d" % (name, _writes.tick())  # two threads may be here
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = _posix.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        try:
            while data:
                data = data[_posix.write(file, data) :]
        finally:
            _posix.close(file)
        _posix.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        _posix.unlink(temporary, dir_fd=directory)
        raise
    before, _written = _written, "%s/%s" % (path, name)
    if before != _written:
        _take_away(before)


def _take_away(path: Optional[str]) -> None:
    if path is not None:
        with contextlib.suppress(OSError):
            _posix.unlink(path)


@fallback.guarded("status_failed")
def _leave() -> None:
    """At exit, delete the file, and log the last summary."""
    global due_at
    due_at = float("inf")  # a handler that was registered earlier may still make requests
    _take_away(_written)
    current = runtime.current
    if current is not None and current.summary_s is not None:
        _summarize(snapshot(describe_hook()))


# -- changes ---------------------------------------------------------------------------------------


def _make_due() -> None:
    global due_at, _file_due_at
    due_at = _file_due_at = 0.0


def _after_fork_in_child() -> None:
    global _since, _written, _has_said, _summarized, _summarized_at
    _since, _written, _has_said = time(), None, False
    _summarized, _summarized_at = {}, monotonic()


runtime.on_change(_make_due)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
