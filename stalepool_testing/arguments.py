"""Checks of the arguments of steps and faults, made when a step is written, not when it is met."""

from __future__ import annotations

import math
import reprlib
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Callable, ClassVar, Mapping, NamedTuple


class Kind(NamedTuple):
    """The values that an argument takes."""

    accepts: str  # in words, for the error
    has_its_type: Callable[[Any], bool]
    is_within: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# http.client accepts these; the test decides what they mean
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
UP, DOWN = "up", "down"  # from the client to the server, and back
DIRECTION = Kind(
    "'up' or 'down'", lambda value: isinstance(value, str), lambda value: value in (UP, DOWN)
)
HEADERS = Kind("a mapping", lambda value: isinstance(value, Mapping), lambda _: True)


class Checked:
    """A dataclass that is checked when it is made; its ``str()`` is the call that makes it."""

    #: argument -> what it takes
    takes: ClassVar[Mapping[str, Kind]] = {}

    def __post_init__(self) -> None:
        require(self, self.takes)

    def __str__(self) -> str:
        """Return the constructor's call, without arguments that have their default."""
        own: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        given = [
            f"{field.name}={reprlib.repr(getattr(self, field.name))}"
            for field in own
            if getattr(self, field.name) != _default_of(field)
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def check(self, family: int) -> None:
        """Raise ``Unavailable`` if this cannot be done on connections of a family."""


def _default_of(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def require(step: object, kinds: Mapping[str, Kind]) -> None:
    """Check attributes of a step or fault, by name.

    :raises TypeError: the first one is of another type; the text says what it takes.
    :raises ValueError: the first one is out of range; likewise.
    """
    for name, kind in kinds.items():
        value = getattr(step, name)
        if not (kind.has_its_type(value) and kind.is_within(value)):
            error = ValueError if kind.has_its_type(value) else TypeError
            raise error(f"{type(step).__name__}({name}={value!r}): it takes {kind.accepts}")


def got(value: object, of: type) -> str:
    """Describe what was given instead of a step or a fault; of a class, say how to write it."""
    if isinstance(value, type) and issubclass(value, of):
        return f"got the class {value.__name__}: write {value.__name__}(...)"
    return f"got {value}" if isinstance(value, of) else f"got {value!r}"
