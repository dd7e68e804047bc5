"""The page that ``stalepool status`` prints: a block for each service, with its origins."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any, Dict, List

from stalepool import summary
from stalepool.cli.status.explain import words_for
from stalepool.cli.status.find import Process
from stalepool.cli.status.services import Service
from stalepool.status_file import INTERVAL_S
from stalepool.summary import count, duration

#: a status that is older than this says so: what came in the five seconds after it may be missing
OLD_S = 2 * INTERVAL_S
#: if a process began so much later than another one, workers may have ended, and the page says so
MUCH_LATER_S = 60.0


def page(services: List[Service]) -> str:
    """Return the page as text."""
    return "\n\n".join("\n".join(_block(service)) for service in services) or nobody()


def nobody() -> str:
    """Say that no process runs with the shim, among those that may be asked."""
    of_whom = "of this machine" if os.geteuid() == 0 else "of yours (root may ask those of others)"
    text = "No process %s runs with the shim. A process is shown once it has imported urllib3."
    return text % of_whom


def _block(service: Service) -> List[str]:
    if not any(seen["installed"] for seen in service.seen):
        return ["%s: %s" % (_title(service), state) for state in _alike(service.processes)]
    counted = service.counted()
    sentence = summary.sentence(counted, service.counted_for_s, service.is_audit)
    lines = ["%s: %s" % (_title(service), sentence)]
    lines += ["  %s" % line for line in _about(service)]
    lines += ["  %s" % line for line in what_is_not_counted(service)]
    for name, number in sorted(counted["fallbacks"].items()):
        lines.append("  fallback %s, %s: %s" % (name, count(number, "time"), words_for(name)))
    quiet = 0
    for origin, seen in sorted(counted["origins"].items()):
        facts = learnt(service, origin, seen)
        if not (seen["checkouts"] or seen["gone"] or seen["reconnects"] or facts):
            quiet += 1
            continue
        lines.append("  %s" % origin)
        lines += ["    %s" % line for line in _about_origin(seen)]
        lines += ["    learnt: %s" % fact for fact in facts]
    if quiet:
        lines.append("  no connection was reused yet to %s" % count(quiet, "origin"))
    return lines


def what_is_not_counted(service: Service) -> List[str]:
    """Say which counts are missing, or may be: those since the last write, and of ended workers."""
    busy = [seen for seen in service.seen if seen["totals"]["checkouts"]] or service.seen
    now, lines = time.time(), []
    oldest_s = now - min(seen["written_at"] for seen in busy)  # not a master's
    began = [seen["since"] for seen in service.seen]
    if oldest_s > OLD_S:
        text = "as of %s ago: a process writes its status after an answer"
        lines.append(text % duration(oldest_s))
    if max(began) - min(began) >= MUCH_LATER_S:
        lines.append(
            "the youngest process began %s ago: counts of workers that have ended are not included "
            "(STALEPOOL_SUMMARY_S logs them)" % duration(now - max(began))
        )
    return lines


def _title(service: Service) -> str:
    first = service.processes[0]
    others = len(service.processes) - 1
    more = "" if not others else " and %s forked from it or beside it" % count(others, "other")
    return "%s (pid %d%s, user %s)" % (service.name, first.pid, more, first.user)


def _about(service: Service) -> List[str]:
    """Return the lines about state, versions, settings, and patches."""
    lines = []
    for text, members in _alike(service.processes).items():
        pids = ", ".join(str(process.pid) for process in members[:8])
        more = ", ..." if len(members) > 8 else ""
        only = " (pid %s%s)" % (pids, more) if len(members) < len(service.processes) else ""
        lines.append(text + only)
    return lines


def _alike(processes: List[Process]) -> Dict[str, List[Process]]:
    """Group processes that have the same state."""
    found: Dict[str, List[Process]] = {}
    for process in processes:
        found.setdefault(_state(process), []).append(process)
    return found


def _state(process: Process) -> str:
    seen = process.seen
    if seen is None:
        return str(process.note)
    if not seen["installed"]:
        return "off: %s" % seen["off_because"]
    return "%s, %s; settings: %s; patched: %s%s" % (
        seen["mode"] or "waits for urllib3",
        ", ".join("%s %s" % pair for pair in seen["versions"].items()),
        summary.settings(seen),
        ", ".join(seen["patched"]) or "nothing yet",
        "".join("; NOT patched: %s" % problem for problem in seen["unpatched"]),
    )


def _about_origin(seen: Dict[str, Any]) -> List[str]:
    lines = [
        "%s at checkout, %s reused"
        % (count(seen["checkouts"], "connection"), "{:,}".format(seen["verdicts"].get("alive", 0)))
    ]
    for title, names in (
        ("connections that ended", seen["gone"]),
        ("requests sent once more", {n: c for n, c in seen["replays"].items() if n != "would"}),
        ("failed and not sent once more", seen["replays_refused"]),
        ("refused connects", seen["reconnects"]),
    ):
        if any(names.values()):
            pairs = ("{} {:,}".format(*pair) for pair in Counter(names).most_common())
            lines.append("%s: %s" % (title, ", ".join(pairs)))
    if seen["replays"].get("would"):
        requests = count(seen["replays"]["would"], "request")
        lines.append("failed, active would have sent once more: %s" % requests)
    if seen["died_idle_s"]:
        lines.append("idle times at which connections died: %s" % idle_times(seen["died_idle_s"]))
    return lines


def idle_times(died: Dict[str, int]) -> str:
    """Return "5.96 s (41), 7.45 s (2)": upper bucket edges, and deaths."""
    found = sorted((float(edge), number) for edge, number in died.items())
    return ", ".join("%g s (%d)" % pair for pair in found)


def learnt(service: Service, origin: str, seen: Dict[str, Any]) -> List[str]:
    """Return the facts about an origin that any of the processes has learnt."""
    known = service.knowledge(origin)
    facts = []
    limits = [k["observed_idle_limit_s"] for k in known if k["observed_idle_limit_s"]]
    if limits:
        deaths = sum(seen["died_idle_s"].values())
        facts.append(
            "closes idle connections at about %.3g s (%s)" % (min(limits), count(deaths, "death"))
        )
    probes = {k["keepalive_probes"] for k in known}
    if "swallowed" in probes:
        facts.append("swallows keepalive probes")
    elif "answered" in probes:
        facts.append("answers keepalive probes")
    stopped = [k for k in known if k["moves_stopped_for_s"]]
    until = max((k["written_at"] + k["moves_stopped_for_s"] for k in stopped), default=0.0)
    if until > time.time():
        clock = time.strftime("%H:%M", time.localtime(until))
        facts.append("no moves near an idle limit until %s" % clock)
    return facts
