"""The settings of one installation, from keyword arguments or from ``STALEPOOL_*``.

Read at process start-up, so it imports next to nothing: no dataclasses, typing or enum (26, 16 and
6 ms in a bare interpreter).
"""

from __future__ import annotations

from stalepool.knobs import KNOBS

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from typing import Any, Mapping, NoReturn

PREFIX = "STALEPOOL_"


class SettingsError(ValueError):
    """A wrong value or an unknown name; the text says what was wrong and what is accepted."""


class Settings:
    """All settings of one installation; frozen.

    :param settings: any of :data:`stalepool.knobs.KNOBS`, as Python values or as the strings an
        environment holds.
    :raises SettingsError: naming the setting, the value and what is accepted.
    """

    __slots__ = tuple(KNOBS)

    enabled: bool
    mode: str
    max_idle_s: float | None
    keepalive: str
    keepalive_idle_s: int
    keepalive_interval_s: int
    keepalive_count: int
    second_look: bool
    replay: str
    nonidempotent_max_idle_s: float | None
    user_timeout_s: float | None
    reconnect_window_s: float

    def __init__(self, **settings: Any) -> None:
        problems = []
        for name, value in settings.items():
            if name not in KNOBS:
                problems.append(_unknown(name, value, {knob: knob for knob in KNOBS}))
        for name, (kind, default, _) in KNOBS.items():
            value = settings.get(name, default)
            try:
                object.__setattr__(self, name, kind.parse(value))
            except (ValueError, KeyError, OverflowError):
                problems.append(_wrong(name, value, kind.accepts))
        if problems:
            raise SettingsError("; ".join(problems))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], **overrides: Any) -> Settings:
        """Settings from the ``STALEPOOL_*`` variables of a mapping; keywords go before variables.

        Where a variable or a keyword throws the kill switch, what else is wrong with the variables
        does not matter.

        :raises SettingsError: also for an unknown ``STALEPOOL_*`` name, with the nearest known one.
        """
        variables = {PREFIX + name.upper(): name for name in KNOBS}
        found, problems = dict(overrides), []
        for variable in sorted(v for v in environ if v.startswith(PREFIX)):
            name = variables.get(variable)
            if name is None:
                problems.append(_unknown(variable, environ[variable], variables))
            elif name not in overrides:
                try:
                    found[name] = KNOBS[name][0].parse(environ[variable])
                except (ValueError, KeyError, OverflowError):
                    problems.append(_wrong(variable, environ[variable], KNOBS[name][0].accepts))
        try:
            chosen = cls(**found)
        except SettingsError as error:
            raise SettingsError("; ".join([*problems, str(error)])) from None
        if problems and chosen.enabled:
            raise SettingsError("; ".join(problems))
        return chosen

    def as_dict(self) -> dict[str, Any]:
        """Name -> value, in the order of :data:`stalepool.knobs.KNOBS`; plain data."""
        return {name: getattr(self, name) for name in KNOBS}

    def __setattr__(self, name: str, value: object = None) -> NoReturn:
        raise AttributeError("Settings are frozen: make new ones, or call stalepool.install()")

    __delattr__ = __setattr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().items()))

    def __repr__(self) -> str:
        return "Settings(%s)" % ", ".join("%s=%r" % item for item in self.as_dict().items())

    def __reduce__(self) -> Any:
        return _revive, (self.as_dict(),)


def _revive(settings: dict[str, Any]) -> Settings:
    return Settings(**settings)


def _wrong(name: str, value: Any, accepts: str) -> str:
    return "%s=%r is not accepted: it takes %s" % (name, value, accepts)


def _unknown(name: str, value: Any, known: Mapping[str, str]) -> str:
    import difflib  # 3 ms: only where something is wrong already

    near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    return "%s=%r is not a setting: the nearest is %s, which takes %s" % (
        name if name.isprintable() else ascii(name),
        value,
        near,
        KNOBS[known[near]][0].accepts,
    )
