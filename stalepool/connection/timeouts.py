"""Timeouts as urllib3 takes them: a number of seconds, None without one, or its sentinel."""

from __future__ import annotations

import _socket
from typing import Any, Optional


def number_of(timeout: Any) -> Optional[float]:
    """Return a timeout in seconds, None without one; urllib3's sentinel means the default."""
    if isinstance(timeout, (int, float)):
        return float(timeout)
    return None if timeout is None else _socket.getdefaulttimeout()


def shorter(*limits: Any) -> Any:
    """Return the smallest number among timeouts; the first one, None or a sentinel, without any."""
    numbers = [limit for limit in limits if isinstance(limit, (int, float))]
    return min(numbers) if numbers else limits[0]
