"""The monotonic clock, out of reach of tools that freeze or move the time of a test.

A socket waits in real time, so a wait that is measured by a moved clock ends at once, or never.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import Callable

# freezegun replaces time.monotonic, and the same function in every module that has it
_real = getattr(sys.modules.get("freezegun.api"), "real_monotonic", time.monotonic)

#: in seconds
monotonic: Callable[[], float] = functools.partial(_real)
