"""The settings of one installation, from keyword arguments or from ``STALEPOOL_*``: one table.

Read at process start-up, so it imports next to nothing: no dataclasses, typing or enum (26, 16 and
6 ms).
"""

from __future__ import annotations

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from typing import Any, Mapping, NoReturn

PREFIX = "STALEPOOL_"
AUTO = "auto"

DAY_S = 86400
DEAD_PROBES = 3  #: unanswered probes of a peer that is dead, while a request waits

# The kinds of settings: what each takes, a Python value or a string, and what it makes of that.
# ``parse`` raises ValueError or OverflowError for what is not accepted; ``accepts`` says what is.


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
        is_odd = "_" in word or not word.isascii() or isinstance(value, bool)
        if is_odd or not isinstance(value, (int, self.number, str)):
            raise ValueError
        number: float = self.number(value)  # would also take 1_5, and digits other than ASCII's
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


#: name -> (what it takes, default, what it does); 32767 and 127 are the kernel's own limits
SETTINGS: dict[str, tuple[Choice | Number | Directory, Any, str]] = {
    "enabled": (Flag(), True, "the kill switch: off leaves the process untouched"),
    "mode": (Choice("active", "audit"), "active", "audit only looks and counts; urllib3 decides"),
    "max_idle_s": (Seconds(0.001, DAY_S, "off"), None, "connections idle longer are not reused"),
    "keepalive": (
        Choice("off", "respect", "tighten"),
        "tighten",
        "TCP keepalive: respect keeps the application's numbers, tighten lowers a longer total",
    ),
    "keepalive_idle_s": (Whole(1, 32767), 5, "seconds of silence before the first keepalive probe"),
    "keepalive_interval_s": (Whole(1, 32767), 3, "seconds between two unanswered probes"),
    "keepalive_count": (Whole(1, 127), 42, "unanswered probes after which the kernel gives up"),
    "presend_check": (Flag(), True, "check once more just before a request's first byte"),
    "replay": (
        Choice("off", "safe", "idempotent"),
        "idempotent",
        "which requests are sent once more after their reused connection has died",
    ),
    "replay_within_s": (
        Seconds(0, 3600),
        2.0,
        "no replay if the peer acknowledged all of it, and closed more than this after the send",
    ),
    "silence_s": (
        Seconds(1, 3600, "off"),
        15.0,
        "how long a safe request, such as GET, waits before the kernel is asked about its peer",
    ),
    "nonidempotent_max_idle_s": (
        Seconds(0, DAY_S, AUTO, "off"),
        AUTO,
        "idle time from which POST and PATCH take a fresh connection; auto: near a known limit",
    ),
    "reconnect_window_s": (
        Seconds(0, 3600),
        1.0,
        "how long a refused connect is tried again, if the peer has answered before",
    ),
    "status_dir": (
        Directory(),
        AUTO,
        "directory of the status file; auto: /run/user/UID, or else /dev/shm",
    ),
    "summary_s": (
        Seconds(1, DAY_S, "off"),
        None,
        "shortest time between two summary lines in the log; one more at exit",
    ),
}


class SettingsError(ValueError):
    """A wrong value or an unknown name; the text says what was wrong and what is accepted."""


class Settings:
    """All settings of one installation; frozen.

    :param settings: any of :data:`stalepool.settings.SETTINGS`, as Python values or as the strings
        an environment holds.
    :raises SettingsError: naming the setting, the value and what is accepted.
    """

    enabled: bool
    mode: str
    max_idle_s: float | None
    keepalive: str
    keepalive_idle_s: int
    keepalive_interval_s: int
    keepalive_count: int
    presend_check: bool
    replay: str
    replay_within_s: float
    silence_s: float | None
    nonidempotent_max_idle_s: float | str | None
    reconnect_window_s: float
    status_dir: str | None
    summary_s: float | None
    is_audit: bool  # an attribute, since each request asks it
    #: name -> the variable that set it, or "install()"; without the defaults
    _sources: dict[str, str]

    def __init__(self, **settings: Any) -> None:
        parsed, problems = _parsed(settings, {name: name for name in SETTINGS})
        if problems:
            raise SettingsError("; ".join(problems))
        for name, (_, default, _) in SETTINGS.items():
            object.__setattr__(self, name, parsed.get(name, default))
        object.__setattr__(self, "is_audit", self.mode == "audit")
        object.__setattr__(self, "_sources", dict.fromkeys(settings, "install()"))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], **overrides: Any) -> Settings:
        """Settings from the ``STALEPOOL_*`` variables of a mapping; keywords override variables.

        With ``enabled`` off, wrong values and unknown names of other variables are ignored.

        :raises SettingsError: also for an unknown ``STALEPOOL_*`` name, with the nearest known one.
        """
        known = {PREFIX + name.upper(): name for name in SETTINGS}
        variables = sorted(v for v in environ if v.startswith(PREFIX))
        given = {v: environ[v] for v in variables if known.get(v) not in overrides}
        parsed, problems = _parsed(given, known)
        try:
            chosen = cls(**parsed, **overrides)
        except SettingsError as error:
            raise SettingsError("; ".join([*problems, str(error)])) from None
        if problems and chosen.enabled:
            raise SettingsError("; ".join(problems))
        chosen._sources.update({name: PREFIX + name.upper() for name in parsed})
        return chosen

    def as_dict(self) -> dict[str, Any]:
        """Name -> value, in the order of :data:`stalepool.settings.SETTINGS`; plain data."""
        return {name: getattr(self, name) for name in SETTINGS}

    def explained(self) -> dict[str, dict[str, Any]]:
        """Name -> its value, and where that is from; plain data."""
        return {
            name: {"value": value, "from": self._sources.get(name, "default")}
            for name, value in self.as_dict().items()
        }

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("Settings are frozen: make new ones, or call stalepool.install()")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().items()))

    def __repr__(self) -> str:
        return "Settings(%s)" % ", ".join("%s=%r" % item for item in self.as_dict().items())


def _parsed(given: Mapping[str, Any], known: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the parsed values by the names of their settings, and what is wrong with the others.

    :param known: name in ``given`` -> name of the setting.
    """
    parsed, problems = {}, []
    for name, value in given.items():
        if name not in known:
            problems.append(_unknown(name, value, known))
            continue
        kind = SETTINGS[known[name]][0]
        try:
            parsed[known[name]] = kind.parse(value)
        except (ValueError, OverflowError):
            problems.append(f"{name}={value!r} is not accepted: it takes {kind.accepts}")
    return parsed, problems


def _unknown(name: str, value: Any, known: Mapping[str, str]) -> str:
    import difflib  # 3 ms: only after an error

    near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    name = name if name.isprintable() else ascii(name)
    accepts = SETTINGS[known[near]][0].accepts
    return f"{name}={value!r} is not a setting: the nearest is {near}, which takes {accepts}"


def contradictions(settings: Settings) -> list[str]:
    """Say which settings keep others from having an effect: one sentence each, usually none."""
    changed = {name for name, value in settings.as_dict().items() if value != SETTINGS[name][1]}
    third_probe_s = settings.keepalive_idle_s + DEAD_PROBES * settings.keepalive_interval_s
    silence_s, max_idle_s = settings.silence_s, settings.max_idle_s
    own_max_idle_s = settings.nonidempotent_max_idle_s
    is_armed, is_replayed = settings.keepalive != "off", settings.replay != "off"
    found = []
    if not is_armed and changed & {"keepalive_idle_s", "keepalive_interval_s", "keepalive_count"}:
        numbers = "keepalive_idle_s, keepalive_interval_s and keepalive_count"
        found.append("keepalive=off: %s do nothing" % numbers)
    if not is_replayed and changed & {"silence_s", "replay_within_s"}:
        found.append("replay=off: silence_s and replay_within_s do nothing")
    if is_armed and is_replayed and silence_s is not None and third_probe_s > silence_s:
        found.append(
            "silence_s is less than keepalive_idle_s + 3 x keepalive_interval_s (%d s): a request "
            "that was acknowledged still waits for three probes" % third_probe_s
        )
    if max_idle_s is not None and isinstance(own_max_idle_s, float) and own_max_idle_s > max_idle_s:
        found.append("nonidempotent_max_idle_s is more than max_idle_s, which always applies first")
    return found
