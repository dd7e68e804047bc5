"""The report on audit mode: what active would have done, and which settings to choose."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from stalepool.cli.status.explain import words_for
from stalepool.cli.status.page import idle_times, learnt, nobody, what_is_not_counted
from stalepool.cli.status.services import Service
from stalepool.stats import BUCKET_RATIO, LOOKED_ALIVE, NO_DISCARDS
from stalepool.summary import count, duration

NO_AUDIT = "None of these processes runs in audit mode: the report is about STALEPOOL_MODE=audit."

#: rules of replay -> what follows if they have refused some requests
_AFTER_REFUSALS = {
    ("switched_off",): "STALEPOOL_REPLAY=idempotent: %s failed with replay off",
    ("method",): "nonidempotent_max_idle_s=auto (the default) keeps POST and PATCH off connections "
    "near an idle limit, once one is known: %s failed that may not be sent again",
    ("peer_had_it", "answer_began"): "no setting, but the servers' logs: %s failed that the server "
    "had",
}


def report(services: List[Service]) -> str:
    """Return the report as text, a section for each service."""
    audited = [service for service in services if service.seen and service.is_audit]
    if not audited:
        return NO_AUDIT if services else nobody()
    return "\n\n".join("\n".join(_section(service)) for service in audited)


def _section(service: Service) -> List[str]:
    counted = service.counted()
    totals = counted["totals"]
    would, failed = _would(totals), _failed(totals)
    number, audited = len(service.processes), duration(service.counted_for_s)
    lines = [
        "%s, %d process%s, %s of audit" % (service.name, number, "es" * (number > 1), audited),
        "How many requests would active have saved? %d of the %s that failed on a connection that "
        "ended." % (would, count(failed, "request")),
        *what_is_not_counted(service),
    ]
    for origin, seen in sorted(counted["origins"].items()):
        lines += ["", "  %s" % origin, *("    %s" % line for line in _findings(seen))]
        lines += ["    learnt: %s" % fact for fact in learnt(service, origin, seen)]
    lines += ["", "What follows:", *("  * %s" % line for line in _conclusions(service, counted))]
    return lines


def _would(seen: Dict[str, Any]) -> int:
    return int(seen["replays"].get("would", 0))


def _failed(seen: Dict[str, Any]) -> int:
    """Count requests whose connection ended during them."""
    return _would(seen) + int(sum(seen["replays_refused"].values()))


def _findings(seen: Dict[str, Any]) -> List[str]:
    lines = [
        "%s failed on a connection that ended, active would have sent %d of them once more"
        % (count(_failed(seen), "request"), _would(seen))
    ]
    lines += [
        "  %d not: %s (%s)" % (number, words_for(name), name)
        for name, number in sorted(seen["replays_refused"].items())
    ]
    lines.append(
        "%s at checkout, of which active would have discarded %d"
        % (count(seen["checkouts"], "connection"), seen["discards"])
    )
    lines += [
        "  %d: %s%s"
        % (number, words_for(name), ", not seen by urllib3's own check" * (name in LOOKED_ALIVE))
        for name, number in sorted(seen["verdicts"].items())
        if name not in NO_DISCARDS
    ]
    lines += [
        "%s would have taken a fresh connection: %s" % (count(number, "request"), words_for(name))
        for name, number in sorted(seen["moved"].items())
    ]
    if seen["died_idle_s"]:
        lines.append("idle times at which connections died: %s" % idle_times(seen["died_idle_s"]))
    return lines


def _conclusions(service: Service, counted: Dict[str, Any]) -> List[str]:
    """Return the settings that are recommended, each with its reason."""
    totals = counted["totals"]
    lines = []
    groups = totals["verdicts"], totals["moved"]
    kept_off = sum(group.get(name, 0) for group in groups for name in LOOKED_ALIVE)
    if _would(totals) or kept_off:
        reason = "%s would have been answered" % count(_would(totals), "failed request")
        if kept_off:
            reason += ", %s not reused that only looked alive" % count(kept_off, "connection")
        lines.append("STALEPOOL_MODE=active: %s" % reason)
    elif _failed(totals):
        lines.append("STALEPOOL_MODE=active would not have saved those that failed, see the rules")
    else:
        lines.append("no setting: no connection ended during a request of these processes")
    for rules, text in _AFTER_REFUSALS.items():
        refused = sum(totals["replays_refused"].get(rule, 0) for rule in rules)
        if refused:
            lines.append(text % count(refused, "request"))
    for origin, seen in sorted(counted["origins"].items()):
        known = service.knowledge(origin)
        if any(k["keepalive_probes"] == "swallowed" for k in known):
            lines.append(
                "STALEPOOL_KEEPALIVE=off if %s is the only origin: probes are swallowed" % origin
            )
        youngest_s = _youngest_death_s(seen)
        has_limit = any(k["observed_idle_limit_s"] for k in known)
        if youngest_s is not None and seen["replays_refused"].get("method") and not has_limit:
            lines.append(
                "STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S=%.2g, if POST and PATCH to %s are worth a "
                "connect after that idle time: connections died from it on, at idle times that "
                "vary too much for auto to learn a limit" % (youngest_s, origin)
            )
    return lines


def _youngest_death_s(seen: Dict[str, Any]) -> Optional[float]:
    """Return the idle time in seconds before which no connection died.

    :returns: None if none died, or one within a second: then no time is safe.
    """
    lower_s = min(map(float, seen["died_idle_s"]), default=0.0) / BUCKET_RATIO
    return lower_s if lower_s >= 1 else None
