"""Find the processes that run with the shim, and read what each has written.

The file of a process is read in the process's own view of the file system, ``/proc/PID/root``, so
systemd's private directories and containers need nothing special. Some processes deny that view: to
a container's root, and to their own user if they began as root and changed to him, as uWSGI does.
Of these only the file is read, if it is in the caller's own view.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from stalepool import status_file
from stalepool.cli import owners
from stalepool.cli.inject import INJECT_DIR
from stalepool.cli.status import content, proc
from stalepool.settings import AUTO, PREFIX, SETTINGS, Settings, SettingsError

FORKED = "no answer has come to it yet: a master process, or an idle worker"
WITHOUT = "runs without the shim"
_VARIABLE = PREFIX + "STATUS_DIR"


class Process(NamedTuple):
    """One process: its own status, or what is known without it."""

    pid: int
    user: str
    command: str
    image: bytes  # the same in processes that were forked from each other
    seen: Optional[Dict[str, Any]] = None
    note: Optional[str] = None  # why there is no status
    is_off: bool = False
    is_quiet: bool = False  # it is shown only if it is asked for
    started: int = 0  # in ticks of the kernel's clock


def processes(pids: Iterable[int] = ()) -> List[Process]:
    """Return the processes that run with the shim, or were meant to.

    :param pids: only these, and each of them, whatever it is; empty: all that may be asked.
    """
    chosen = list(dict.fromkeys(pids))
    if chosen:
        gone = Process(0, "?", "?", b"", note="no such process", is_off=True)
        return [_process(pid) or gone._replace(pid=pid) for pid in chosen]
    _sweep()
    others = {int(name) for name in os.listdir("/proc") if name.isdecimal()} - {os.getpid()}
    here = [process for process in map(_process, others) if process is not None]
    images = {process.image for process in here if process.seen is not None}
    workers = [
        process._replace(note=FORKED, is_off=False, is_quiet=False)
        if process.seen is None and process.image in images
        else process
        for process in here
    ]
    return [process for process in workers if not process.is_quiet]


def _process(pid: int) -> Optional[Process]:
    """Look at one process; None if it is gone by now."""
    try:
        facts = proc.fields("/proc/%d/status" % pid)
        user = int(facts["Uid"].split()[1])
        line = proc.read("/proc/%d/stat" % pid)
        command = str(content.printable(proc.command(pid, facts["Name"])))[:60]
    except (OSError, KeyError):
        return None
    started, root = status_file.start_ticks(line), "/proc/%d/root" % pid
    process = Process(pid, owners.name_of(user), command, b"", started=started)
    try:
        process = process._replace(image=proc.read("/proc/%d/auxv" % pid))
        environ, inside = proc.environ(pid), proc.user_inside(pid, user)
        namespace = os.stat("/proc/%d/ns/pid" % pid).st_ino
    except PermissionError:
        others = " and %s" % process.user if user != owners.ROOT else " with CAP_SYS_PTRACE"
        refusal = "cannot be asked: only root%s may" % others
        # what workers have in common, as far as it is known
        image = b"%s %d %s" % (proc.process_group(line), user, command.encode())
        process = process._replace(image=image, note=refusal, is_quiet=True)
        environ, root, inside = {}, "", user
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # or a thread of the kernel's
        return None
    name = status_file.name_of(int(facts.get("NSpid", str(pid)).split()[-1]), namespace)
    began = proc.started_inside(pid, started)
    seen, problem = _newest(root, _directories(environ, inside), user, name, began)
    if seen is not None:
        return process._replace(seen=seen, note=None, is_off=not seen["installed"], is_quiet=False)
    if process.note is not None:
        return process
    is_off, note = _told_by(environ, inside)
    if note != WITHOUT and not proc.runs_python(pid):  # a shell, say, that starts one
        is_off, note = True, WITHOUT
    if problem is not None:
        # a bad directory says nothing of the user's other processes
        is_quiet = note == WITHOUT and name not in problem
        return process._replace(note=problem, is_off=True, is_quiet=is_quiet)
    return process._replace(note=note, is_off=is_off, is_quiet=note == WITHOUT)


def _newest(root: str, paths: List[str], user: int, name: str, ticks: int) -> Any:
    """Return what the process wrote last; if nothing, None and what is wrong with its file.

    :param root: the root of its view of the file system, in ours.
    :param paths: of the directories where it may lie, in its view.
    :param ticks: when it began, in its view; the offset between the views may be off by one.
    """
    written: List[Dict[str, Any]] = []
    problem: Optional[str] = None
    for path in paths:
        what = "directory %s" % path
        try:
            with status_file.open_directory(root + path, user) as directory:
                what = "status file %s/%s" % (path, name)
                written.append(content.read(directory, name, user))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problem = "its %s cannot be used: %s" % (what, content.reason(error))
    its_own = [seen for seen in written if abs(seen["start_ticks"] - ticks) <= 1]
    return max(its_own, key=lambda seen: float(seen["written_at"]), default=None), problem


def _directories(environ: Dict[str, str], user: int) -> List[str]:
    """Return where the file may be, by the process's setting, by ours, and by default."""
    found: List[str] = []
    for variable in (environ.get(_VARIABLE), os.environ.get(_VARIABLE), AUTO):
        with contextlib.suppress(ValueError):
            chosen = SETTINGS["status_dir"][0].parse(variable)
            found += status_file.directories(str(chosen), user) if chosen is not None else []
    return list(dict.fromkeys(found))


def _told_by(environ: Dict[str, str], user: int) -> Any:
    """Return (is off, note) from the environment of a Python that has written nothing."""
    variables = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    try:
        settings = Settings.from_environ(variables)
    except SettingsError as error:
        return True, "off: %s" % error
    if not settings.enabled:
        return True, "off: STALEPOOL_ENABLED=%s" % variables["STALEPOOL_ENABLED"]
    is_injected = str(INJECT_DIR) in environ.get("PYTHONPATH", "").split(os.pathsep)
    if not variables and not is_injected and environ.get("STALEPOOL") != "1":
        return True, WITHOUT
    if settings.status_dir is None:
        return False, "keeps no status file: %s=%s" % (_VARIABLE, variables[_VARIABLE])
    places = map(os.path.dirname, status_file.directories(settings.status_dir, user))
    told = "no status: it has not imported urllib3, its Python has no stalepool, or it cannot "
    return False, told + "write below %s" % " or ".join(places)


def _sweep() -> None:
    """Delete the files of processes that are gone; as root those of all users."""
    own = os.geteuid()
    users = [own] if own else [user.pw_uid for user in pwd.getpwall()]
    for path in {path for user in users for path in _directories({}, user)}:
        user = int(path.rpartition("-")[2])
        with contextlib.suppress(OSError), status_file.open_directory(path, user) as directory:
            status_file.sweep(directory)
