"""Checks of the arguments of steps and faults, made when a step is written, not when it is met."""

from __future__ import annotations

import collections.abc
import math
import reprlib
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Callable, ClassVar, Mapping, NamedTuple


class Kind(NamedTuple):
    """The values that an argument takes; none takes a ``bool``."""

    accepts: str  # in words, for the error
    types: tuple[Any, ...]
    is_within: Callable[[Any], bool] = lambda value: True


UP, DOWN = "up", "down"  # from the client to the server, and back
# http.client accepts these; the test decides what they mean
STATUS = Kind("a status from 100 to 999", (int,), lambda value: 100 <= value <= 999)
SECONDS = Kind("seconds from 0", (int, float), lambda value: 0 <= value < math.inf)
SECONDS_OR_NONE = Kind(
    "seconds from 0, or None",
    (int, float, type(None)),
    lambda value: value is None or SECONDS.is_within(value),
)
COUNT = Kind("a whole number from 1", (int,), lambda value: value >= 1)
BYTES = Kind("bytes", (bytes,))
BODY = Kind("bytes, or a function of the request", (bytes, collections.abc.Callable))
DIRECTION = Kind("'up' or 'down'", (str,), lambda value: value in (UP, DOWN))
HEADERS = Kind("a mapping", (collections.abc.Mapping,))


class Checked:
    """A dataclass that is checked when it is made; its ``str()`` is the call that makes it.

    :raises TypeError: the first wrong argument is of another type; the text says what it takes.
    :raises ValueError: the first wrong argument is out of range; likewise.
    """

    #: argument -> what it takes
    takes: ClassVar[Mapping[str, Kind]] = {}
    #: the place where it is to be written, for the error if it is written elsewhere
    belongs: ClassVar[str]

    def __post_init__(self) -> None:
        for name, kind in self.takes.items():
            value = getattr(self, name)
            has_its_type = isinstance(value, kind.types) and not isinstance(value, bool)
            if not (has_its_type and kind.is_within(value)):
                error = ValueError if has_its_type else TypeError
                raise error(f"{type(self).__name__}({name}={value!r}): it takes {kind.accepts}")

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


def got(value: object, of: type) -> str:
    """Describe what was given instead of a step or a fault; of a class, say how to write it."""
    if isinstance(value, type) and issubclass(value, of):
        return f"got the class {value.__name__}: write {value.__name__}(...)"
    if isinstance(value, Checked) and not isinstance(value, of):
        return f"got {value}, which belongs {value.belongs}"
    return f"got {value}" if isinstance(value, of) else f"got {value!r}"
