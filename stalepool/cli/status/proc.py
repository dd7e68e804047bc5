"""Facts about a process under Linux's ``/proc``: proc(5). If the process is gone: OSError."""

from __future__ import annotations

import os
from typing import Dict, List

_SYS_PTRACE = 19  # capabilities(7)


def has_proc() -> bool:
    """Tell whether processes can be asked at all: Linux, with its ``/proc``."""
    return os.path.exists("/proc/self/ns/pid")


def lacks_privilege() -> bool:
    """Tell whether this root may not look into other users' processes, as in a container."""
    capabilities = fields("/proc/self/status").get("CapEff", "ffffffff")
    return os.geteuid() == 0 and not int(capabilities, 16) >> _SYS_PTRACE & 1


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def fields(path: str) -> Dict[str, str]:
    """Return the fields of a file of lines such as ``Name: value``."""
    text = read(path).decode(errors="replace")
    return {key: value.strip() for key, _, value in (s.partition(":") for s in text.splitlines())}


def user_inside(pid: int, user: int) -> int:
    """Return a process's user by its number in the process's user namespace, user_namespaces(7)."""
    if os.path.samefile("/proc/%d/ns/user" % pid, "/proc/self/ns/user"):
        return user  # else the map has the numbers of the parent namespace
    for line in read("/proc/%d/uid_map" % pid).splitlines():
        inside, outside, count = map(int, line.split())
        if outside <= user < outside + count:
            return inside + user - outside
    return user


def runs_python(pid: int) -> bool:
    """Tell whether a Python runs in a process, perhaps in another program, such as uWSGI."""
    try:
        return b"python" in read("/proc/%d/maps" % pid)
    except OSError:
        return False


def started_inside(pid: int, ticks: int) -> int:
    """Return when a process began as that is read in its time namespace, time_namespaces(7).

    :param ticks: the same as it is read here, of the kernel's clock since boot.
    """
    try:
        shift_s = _since_boot_s("/proc/%d" % pid) - _since_boot_s("/proc/self")
    except (OSError, ValueError):  # before Linux 5.5; it is empty for a process that ends
        return ticks
    return ticks + round(shift_s * os.sysconf("SC_CLK_TCK"))


def _since_boot_s(place: str) -> float:
    """Return what a process's time namespace adds to the seconds since boot."""
    seconds, ns = read(place + "/timens_offsets").split()[-2:]  # the last clock's
    return int(seconds) + int(ns) / 1e9


def process_group(line: bytes) -> bytes:
    """Return a process's group from its ``/proc/PID/stat``, field 5."""
    return line.rpartition(b")")[2].split()[2]


def environ(pid: int) -> Dict[str, str]:
    """Return the environment that a process was started with."""
    words = read("/proc/%d/environ" % pid).decode(errors="replace").split("\0")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def command(pid: int, name: str) -> str:
    """Return the name of a program: the script that a Python runs, or the command.

    :param name: the kernel's name for it, for a process without a command line.
    """
    cmdline = read("/proc/%d/cmdline" % pid)
    words = [word for word in cmdline.decode(errors="replace").split("\0") if word]
    names = [os.path.basename(word) for word in words] or [name]
    if names[0].startswith("python"):
        names = _script(names[1:]) or names
    return names[0]


def _script(words: List[str]) -> List[str]:
    """Return the name of a Python's script or module; not the text after -c."""
    rest = iter(words)
    for word in rest:
        if word == "-c":
            return ["python -c"]
        if word == "-m":
            return ["python -m %s" % next(rest, "")]
        if word in ("-W", "-X"):
            next(rest, None)
        elif not word.startswith("-"):
            return [word]
    return []
