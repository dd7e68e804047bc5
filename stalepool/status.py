"""The status of this process: a snapshot, a file for ``stalepool status``, and lines in the log.

When something is due, the next answer calls this module: not between a check and its request.
"""

from __future__ import annotations

import atexit
import os
import sys
from time import time
from typing import Any, Callable, Dict

from stalepool import fallback, runtime, stats, status_file, summary
from stalepool.clock import monotonic

#: the packages whose versions are shown, if they are loaded
_SHOWN = ("stalepool", "urllib3", "wrapt", "eventlet", "gevent", "requests")

AFTER_FAILURE_S = 300.0  #: seconds until a failed write is tried again
#: monotonic time at which the next answer is to call :func:`write_due`
due_at = 0.0

#: returns what is patched, and why not; set by the import hook, which must not be imported here
describe_hook: Callable[[], Dict[str, Any]] = dict

_file_due_at = 0.0
_since = time()  # of the process, or of its fork: all counters began then
_has_said = False
_summarized: Dict[str, Any] = {}
_summarized_at = monotonic()


def snapshot(hook: Dict[str, Any]) -> Dict[str, Any]:
    """Return all that is known of this process, with ``hook``, as :func:`control.snapshot` does."""
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
    """Return those of Python and of loaded packages; this does not load a lazy module."""
    found = {"python": sys.version.split()[0]}
    for name in _SHOWN:
        module = sys.modules.get(name)
        if isinstance(module, type(sys)):
            found[name] = str(object.__getattribute__(module, "__dict__").get("__version__"))
    return found


@fallback.guarded("status_failed")
def show() -> None:
    """Write the file after something was patched, could not be patched, or was unpatched."""
    status_file.write(snapshot(describe_hook()), monotonic())


@fallback.guarded("status_failed")
def write_due() -> None:
    """Write what is due: the file, the line that says that the shim is active, the summary.

    Yields only inside a log handler that does. Raises nothing.
    """
    global due_at, _file_due_at, _has_said
    due_at = monotonic() + AFTER_FAILURE_S  # other threads need not do it, too
    current = runtime.current
    if current is None:  # uninstalled meanwhile
        return
    began = monotonic()  # with 512 origins, the snapshot takes 29 ms, and the write 8 ms
    now, interval_s = snapshot(describe_hook()), current.summary_s or float("inf")
    if monotonic() >= _file_due_at:
        _file_due_at = status_file.write(now, began) or due_at
    _has_said = _has_said or _say_that_it_is_active(now)
    if monotonic() >= _summarized_at + interval_s:
        _summarize(now)
    due_at = min(_file_due_at, _summarized_at + interval_s)


@fallback.guarded("status_failed")
def say_that_it_is_off() -> None:
    """Log at WARNING that the shim is off, unless it is on by now or uninstalled."""
    hook = describe_hook()
    if hook["settings"] and not hook["installed"]:  # once it is uninstalled, there are no settings
        text = "stalepool is not active in this process: %s"
        fallback.log("status", "WARNING", text, hook["off_because"])


def _say_that_it_is_active(now: Dict[str, Any]) -> bool:
    level = "WARNING" if now["unpatched"] else "INFO"
    text = "stalepool %s is active in process %d, mode %s; settings: %s; patched: %s%s"
    args = (now["versions"]["stalepool"], now["pid"], now["mode"], summary.settings(now))
    left_out = "".join("; not patched: %s" % problem for problem in now["unpatched"])
    return fallback.log("status", level, text, *args, ", ".join(now["patched"]), left_out)


def _summarize(now: Dict[str, Any]) -> None:
    """Log what was done since the last summary, if anything was."""
    global _summarized, _summarized_at
    counted = {"totals": now["totals"], "fallbacks": now["fallbacks"]}
    seen, passed_s = stats.summed([counted, _summarized], (1, -1)), monotonic() - _summarized_at
    if summary.has_events(seen):
        text = summary.sentence(seen, passed_s, now["mode"] == "audit")
        fallback.log("status", "INFO", "process %d %s", now["pid"], text)
    _summarized, _summarized_at = counted, monotonic()


@atexit.register
@fallback.guarded("status_failed")
def _at_exit() -> None:
    """At exit, delete the file, and log the last summary."""
    global due_at
    due_at = float("inf")  # a handler that was registered earlier may still make requests
    status_file.delete()
    current = runtime.current
    if current is not None and current.summary_s is not None:
        _summarize(snapshot(describe_hook()))


def _make_due() -> None:
    global due_at, _file_due_at
    due_at = _file_due_at = 0.0


def _after_fork_in_child() -> None:
    global _since, _has_said, _summarized, _summarized_at
    status_file.written = None  # it is the parent's
    _since, _has_said = time(), False
    _summarized, _summarized_at = {}, monotonic()


runtime.on_change(_make_due)
runtime.register_at_fork(after_in_child=_after_fork_in_child)
