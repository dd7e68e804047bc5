"""The monotonic clock; and urllib3's timeouts: seconds, None for no limit, or its sentinel.

The clock is out of reach of tools that freeze or move the time of a test. A socket waits in real
time, so a wait that is measured by a moved clock ends at once, or never.
"""

from __future__ import annotations

import _socket
import functools
import sys
import time
from typing import Any, Callable, Optional

# freezegun replaces time.monotonic, and the same function in every module that has it
_real = getattr(sys.modules.get("freezegun.api"), "real_monotonic", time.monotonic)

monotonic: Callable[[], float] = functools.partial(_real)  #: in seconds


def number_of(timeout: Any) -> Optional[float]:
    """Return a timeout in seconds, None without one; urllib3's sentinel means the default."""
    if isinstance(timeout, (int, float)):
        return float(timeout)
    return None if timeout is None else _socket.getdefaulttimeout()


def shorter(*timeouts: Any) -> Any:
    """Return the smallest number among timeouts; None without any, as the sentinel is none."""
    return min([each for each in timeouts if isinstance(each, (int, float))], default=None)
