"""An exception, and those behind it."""

from __future__ import annotations

from typing import List, Optional


def links(error: Optional[BaseException]) -> List[BaseException]:
    """An error and all that it was made from."""
    found: List[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
