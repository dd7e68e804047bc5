"""The kinds of settings: what each takes, a Python value or a string, and what it makes of that.

``parse`` raises ValueError or OverflowError for what is not accepted; ``accepts`` says what is.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from typing import Any

AUTO = "auto"


class Choice:
    """One of a few words, in upper or lower case."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.accepts = ", ".join(words[:-1]) + " or " + words[-1]

    def parse(self, value: Any) -> Any:
        word = (value if isinstance(value, str) else str(value)).strip().lower()
        if word not in self.words:
            raise ValueError
        return word


class Flag(Choice):
    on, off = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

    def __init__(self) -> None:
        super().__init__(*self.on, *self.off)

    def parse(self, value: Any) -> bool:
        return super().parse(value) in self.on


class Number:
    """A number within bounds, or one of the given words: ``off`` is None in Python."""

    unit: str
    number: type[int] | type[float]

    def __init__(self, lowest: float, highest: float, *words: str) -> None:
        self.lowest, self.highest, self.words = lowest, highest, words
        self.accepts = "%s from %g to %g" % (self.unit, lowest, highest)
        if words:
            self.accepts += ", or " + " or ".join(words)

    def parse(self, value: Any) -> float | str | None:
        word = "off" if value is None else value.strip().lower() if isinstance(value, str) else ""
        if word in self.words:
            return None if word == "off" else word
        # int() and float() also take 1_5, and digits other than ASCII's
        is_odd = isinstance(value, str) and ("_" in value or not value.strip().isascii())
        if is_odd or isinstance(value, bool) or not isinstance(value, (int, self.number, str)):
            raise ValueError
        number: float = self.number(value)
        if not self.lowest <= number <= self.highest:  # false for NaN as well
            raise ValueError
        return number


class Seconds(Number):
    unit, number = "seconds", float


class Whole(Number):
    unit, number = "a whole number", int


class Directory:
    """A directory by its absolute path, or one of two words: ``off`` is None in Python."""

    accepts = "an absolute path, auto or off"

    def parse(self, value: Any) -> str | None:
        word = "off" if value is None else value.strip() if isinstance(value, str) else ""
        if word.lower() in (AUTO, "off"):
            return AUTO if word.lower() == AUTO else None
        if not word.startswith("/") or "\0" in word:
            raise ValueError
        return word
