"""The content of a status file, which another user may have written.

So no link is followed, nothing is waited for, the size is limited, and what is in it has to be what
this version writes.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from typing import Any, Dict

from stalepool import stats

LARGEST_FILE = 8 << 20


def read(directory: int, name: str, user: int) -> Dict[str, Any]:
    """Read one status file.

    :raises OSError: it is not there, or cannot be opened.
    :raises ValueError: it is not the user's, or its content is not a status.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(name, flags, dir_fd=directory)
    with open(file, "rb") as opened:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != user:
            raise ValueError("it is not a file of its user's")
        data = opened.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError("it is too large")
    try:
        seen = printable(json.loads(data.decode()))
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not is_a_status(seen):
        raise ValueError("it is not of stalepool's making, or of another version")
    return dict(seen)


def reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ELOOP:  # of O_NOFOLLOW
        return "it is a link"
    return str(getattr(error, "strerror", None) or error)


def printable(value: Any) -> Any:
    """Replace the control characters in all strings."""
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else "?" for letter in value)
    if isinstance(value, list):
        return [printable(each) for each in value]
    if isinstance(value, dict):
        return {printable(key): printable(each) for key, each in value.items()}
    return value


def is_a_status(seen: Any) -> bool:
    """Tell whether this is what this version of stalepool writes."""
    if not _fits(seen, _example()):
        return False
    counted = [seen["totals"], *seen["origins"].values()]
    edges = [edge for each in counted for edge in each["died_idle_s"]]
    return all(re.fullmatch(r"[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?", edge) for edge in edges)


def _example() -> Dict[str, Any]:
    """Return a status in which each type occurs once; a tuple has the types that are allowed."""
    counted = stats.Origin("").as_dict()
    knowledge = {**counted.pop("knowledge"), "observed_idle_limit_s": (None, 0.0)}
    counted = {key: {"": 0} if value == {} else value for key, value in counted.items()}
    return {
        **{
            "versions": {"stalepool": "", "python": ""},
            "pid": 0,
            "start_ticks": 0,
            "written_at": 0.0,
            "since": 0.0,
        },
        **{"installed": True, "mode": (None, ""), "off_because": (None, "")},
        **{"patched": [""], "unpatched": [""]},
        "settings": {"": {"value": (None, True, 0.0, ""), "from": ""}},
        "fallbacks": {"": 0},
        "totals": counted,
        "origins": {"": {**counted, "knowledge": knowledge}},
    }


def _fits(value: Any, example: Any) -> bool:
    """Tell whether a value has the types of an example, in which an empty key stands for any."""
    if isinstance(example, tuple):
        return any(_fits(value, each) for each in example)
    if isinstance(example, float):  # a time or a duration in seconds
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and 0 <= value < 1e11
    if type(value) is not type(example):
        return False
    if type(example) is int:  # a count, which is to be summed, formatted, and made a float
        return bool(0 <= value < 1 << 53)
    if isinstance(example, list):
        return all(_fits(each, example[0]) for each in value)
    if not isinstance(example, dict):
        return True
    if "" in example:
        return all(_fits(each, example[""]) for each in value.values())
    return all(key in value and _fits(value[key], example[key]) for key in example)
