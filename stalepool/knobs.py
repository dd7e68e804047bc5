"""Every knob: what it takes, its default, what it does; with its unit in its name. One table.

What a kind of knob takes may be a Python value or a string as an environment holds it; ``parse``
raises ValueError (KeyError, OverflowError) for anything else, and ``accepts`` says what it takes.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from typing import Any

OFF = None  # "off" for a limit in seconds


class Flag:
    accepts = "1, true, yes, on, 0, false, no or off"
    _words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }

    def parse(self, value: Any) -> bool:
        if not isinstance(value, (int, str)):
            raise ValueError
        return self._words[str(value).strip().lower()]


class Choice:
    def __init__(self, *words: str) -> None:
        self.words = words
        self.accepts = ", ".join(words[:-1]) + " or " + words[-1]

    def parse(self, value: Any) -> str:
        word = value.strip().lower() if isinstance(value, str) else value
        if word not in self.words:
            raise ValueError
        return str(word)


class Whole:
    """A whole number within what the kernel takes."""

    def __init__(self, lowest: int, highest: int) -> None:
        self.lowest, self.highest = lowest, highest
        self.accepts = "a whole number from %d to %d" % (lowest, highest)

    def parse(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError
        number = int(_plain(value))
        if not self.lowest <= number <= self.highest:
            raise ValueError
        return number


class Seconds:
    """A duration; ``off`` (or None) where the rule behind it can be switched off."""

    def __init__(self, lowest: float, highest: float, or_off: bool = False) -> None:
        self.lowest, self.highest, self.or_off = lowest, highest, or_off
        self.accepts = "seconds from %g to %g%s" % (lowest, highest, ", or off" if or_off else "")

    def parse(self, value: Any) -> float | None:
        if value is OFF or (isinstance(value, str) and value.strip().lower() == "off"):
            if self.or_off:
                return OFF
            raise ValueError
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = float(_plain(value))
        if not self.lowest <= number <= self.highest:  # false for NaN as well
            raise ValueError
        return number


def _plain(value: Any) -> Any:
    """Refuse what int() and float() take besides: 1_5, and the digits of any script."""
    if isinstance(value, str) and ("_" in value or not value.strip().isascii()):
        raise ValueError
    return value


DAY_S = 86400

#: name -> (what it takes, default, what it does); 32767 and 127 are the kernel's own limits
KNOBS: dict[str, tuple[Flag | Choice | Whole | Seconds, Any, str]] = {
    "enabled": (Flag(), True, "the kill switch: 0 leaves the process untouched"),
    "mode": (Choice("active", "audit"), "active", "audit only looks and counts; urllib3 decides"),
    "max_idle_s": (Seconds(0.001, DAY_S, or_off=True), 60.0, "drop a connection idle for longer"),
    "keepalive": (
        Choice("off", "respect", "tighten", "force"),
        "tighten",
        "TCP keepalive: respect fills in, tighten also shortens, force overrides",
    ),
    "keepalive_idle_s": (Whole(1, 32767), 5, "silence before the first probe"),
    "keepalive_interval_s": (Whole(1, 32767), 5, "between two probes"),
    "keepalive_count": (Whole(1, 127), 3, "unanswered probes until the kernel gives up"),
    "second_look": (Flag(), True, "look once more just before a request's first byte"),
    "replay": (
        Choice("off", "safe", "idempotent", "evidence"),
        "idempotent",
        "which requests are sent once more when their reused connection died",
    ),
    "nonidempotent_max_idle_s": (
        Seconds(0, DAY_S, or_off=True),
        1.0,
        "POST and PATCH take a fresh connection when the pooled one idled longer; 0: always",
    ),
    "user_timeout_s": (
        Seconds(1, DAY_S, or_off=True),
        15.0,
        "how long a small request may stay unacknowledged (TCP_USER_TIMEOUT)",
    ),
    "reconnect_window_s": (
        Seconds(0, 3600),
        3.0,
        "how long a refused connect to an origin known to answer is tried again; 0: not at all",
    ),
}
