"""What a step may be made of: refused where it is written down, not when the server meets it."""

from __future__ import annotations

import math
from typing import Any, Callable, Mapping, NamedTuple


class Kind(NamedTuple):
    """What an argument takes."""

    accepts: str  # in words, for the error
    has_its_type: Callable[[Any], bool]
    is_within: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# http.client takes these; what they mean is the test's business
STATUS = Kind("a status from 100 to 999", _is_whole, lambda value: 100 <= value <= 999)
SECONDS = Kind("seconds from 0", _is_number, lambda value: 0 <= value < math.inf)
SECONDS_OR_NONE = Kind(
    "seconds from 0, or None",
    lambda value: value is None or _is_number(value),
    lambda value: value is None or SECONDS.is_within(value),
)
COUNT = Kind("a whole number from 1", _is_whole, lambda value: value >= 1)
BYTES = Kind("bytes", lambda value: isinstance(value, bytes), lambda _: True)
BODY = Kind(
    "bytes, or a function of the request",
    lambda value: isinstance(value, bytes) or callable(value),
    lambda _: True,
)
HEADERS = Kind("a mapping", lambda value: isinstance(value, Mapping), lambda _: True)


def require(step: object, kinds: Mapping[str, Kind]) -> None:
    """Hold attributes of a step, by name, against what they take.

    :raises TypeError: for the first one of another type, with what it takes.
    :raises ValueError: for the first one out of range, likewise.
    """
    for name, kind in kinds.items():
        value = getattr(step, name)
        if not (kind.has_its_type(value) and kind.is_within(value)):
            error = ValueError if kind.has_its_type(value) else TypeError
            raise error(f"{type(step).__name__}({name}={value!r}): it takes {kind.accepts}")
