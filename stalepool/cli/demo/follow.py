"""A child of the demo ends when the demo does, even if that was killed."""

from __future__ import annotations

import os
import signal
import sys

#: The variable that tells a child whom to follow.
PARENT = "DEMO_PARENT_PID"

_PR_SET_PDEATHSIG = 1


def follow_parent() -> None:
    """Called first in a child: be killed by the kernel when the demo dies (Linux).

    It holds across ``exec``, so haproxy follows as well. Elsewhere it does
    nothing, and the demo's own clean-up has to do. A child run by hand has no
    parent to follow.
    """
    parent = os.environ.get(PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the line above
        sys.exit("the demo is gone")
