"""The sentence that says what the shim has done; for the log and for ``stalepool status``."""

from __future__ import annotations

from typing import Any, Dict

from stalepool.settings import SETTINGS
from stalepool.stats import GROUPS


def sentence(seen: Dict[str, Any], seconds: float, is_audit: bool) -> str:
    """Return one line about what was counted.

    :param seen: ``totals`` and ``fallbacks`` of a snapshot, or of a difference of two.
    :param seconds: the time in which they were counted.
    """
    totals, time = seen["totals"], duration(seconds)
    discards = count(totals["discards"], "connection")
    fallbacks = count(sum(seen["fallbacks"].values()), "fallback")
    if is_audit:
        would, refused = totals["replays"].get("would", 0), sum(totals["replays_refused"].values())
        failed = count(would + refused, "request")
        return (
            f"audit for {time}: {failed} failed on a connection that ended, active would have sent "
            f"{would:,} of them once more; it would have discarded {discards}; {fallbacks}"
        )
    saved = totals["saved"]
    return (
        f"saved {count(sum(saved.values()), 'request')} in {time}: "
        f"{saved['replayed']:,} sent once more, {saved['kept_off']:,} kept off a connection that "
        f"only looked alive, {saved['reconnected']:,} reconnected; "
        f"discarded {discards} at checkout; {fallbacks}"
    )


def settings(seen: Dict[str, Any]) -> str:
    """Return the settings of a snapshot that are not the defaults, and where each is from."""
    changed = [
        "%s=%s (%s)" % (name, shown(setting["value"]), setting["from"])
        for name, setting in seen["settings"].items()
        if name in SETTINGS and setting["value"] != SETTINGS[name][1]
    ]
    return ", ".join(changed) or "the defaults"


def shown(value: Any) -> str:
    """Return the value of a setting as its variable would have it, such as ``off`` for None."""
    if value is None or isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def has_events(seen: Dict[str, Any]) -> bool:
    """Tell whether anything but healthy requests was counted."""
    totals = seen["totals"]
    events = [totals[group] for group in ("saved", *GROUPS) if group != "verdicts"]
    counted = [group.values() for group in (*events, seen["fallbacks"])]
    return bool(totals["discards"]) or any(map(any, counted))


def count(number: int, noun: str) -> str:
    """Return "1 request", "1,226 requests"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return "40 s", "12 min", "3 h", "5 d": in the largest unit that gives two or more."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return "%d %s" % (round(seconds / size), unit)
    return "%d s" % round(max(seconds, 0))
