"""The doctor's questions: a function for each, from facts to findings, and their table."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

from stalepool import summary
from stalepool.patching.copies import place_of
from stalepool.settings import Settings, contradictions

OK, WARNING, ERROR = "ok", "warning", "error"


class Finding(NamedTuple):
    """One answer to one question."""

    question: str
    level: str
    says: str
    remedy: str = ""  # a sentence, where the level is not OK


Facts = Dict[str, Any]
#: level, a sentence, and a sentence of remedy
Answers = Iterator[Tuple[str, str, str]]

#: the first major.minor that is known to fit, and the first that is not known to
_OLDEST_URLLIB3, _UNKNOWN_URLLIB3 = (1, 26), (3, 0)


def python(facts: Facts) -> Answers:
    # of a program is known what it has loaded, and not what its Python has
    no_ssl = "no ssl" if facts.get("start") else "ssl not loaded"
    says = "%s %s, %s, %s %s" % (
        facts["implementation"], facts["python"], facts["versions"].get("openssl") or no_ssl,
        facts["system"], facts["kernel"],
    )  # fmt: skip
    if facts["implementation"] != "cpython":
        yield ERROR, says, "Run the service with CPython: others are not supported."
    elif facts["system"] != "Linux":
        yield WARNING, says, "Expect less here: only Linux tells stalepool all it asks for."
    else:
        yield OK, says, ""


def settings(facts: Facts) -> Answers:
    found = facts["settings"]
    if isinstance(found, str):
        yield ERROR, found, "Correct it: until then nothing is patched."
        return
    default = Settings().as_dict()
    changed = [(n, v) for n, v in found.as_dict().items() if v != default[n]]
    says = ", ".join("%s=%s" % (n, summary.shown(v)) for n, v in changed)
    if not found.enabled:
        yield WARNING, "STALEPOOL_ENABLED is off", "Remove it to have urllib3 patched."
    else:
        yield OK, says or "the defaults", ""
    for sentence in contradictions(found):
        yield WARNING, sentence, "Set one of them otherwise, or leave both at their defaults."


def start(facts: Facts) -> Answers:
    """Find the ways to switch stalepool on in a program that does not import it."""
    found = facts.get("start")
    if found is None:
        return
    switch = found["switch"]
    if switch not in (None, "", "0", "1"):
        yield (WARNING, "STALEPOOL=%s does nothing" % switch, "Write STALEPOOL=1.")
    if switch == "1" and not found["has_start_file"]:
        remedy = "Have pip install stalepool here, or use stalepool run."
        yield WARNING, "STALEPOOL=1 does nothing: there is no stalepool-start.pth here", remedy
    if found["writable_by_others"]:
        remedy = "Pass --trust USER, or change its owner or its permissions."
        yield WARNING, "stalepool run refuses: %s %s" % found["writable_by_others"], remedy
    ways = ["STALEPOOL=1"] * found["has_start_file"] + ["stalepool run"] * found["is_injectable"]
    yield OK, "ways to switch it on: %s" % ", ".join([*ways, "import stalepool"]), ""


def versions(facts: Facts) -> Answers:
    found = {name: version for name, version in facts["versions"].items() if name != "openssl"}
    yield OK, ", ".join("%s %s" % item for item in found.items()), ""


def urllib3(facts: Facts) -> Answers:
    version = facts["versions"].get("urllib3")
    if "import_error" in facts:
        says = "no urllib3: %s" % facts["import_error"]
        yield WARNING, says, "Run the doctor in the Python of the service."
        return
    if not version:
        remedy = (
            "Look at the Python that the service really runs in. Workers that are spawned, not "
            "forked, are not watched: stalepool status shows them."
        )
        yield WARNING, "no urllib3: no watched process imported it", remedy
        return
    numbers = tuple(int(n) for n in version.split(".")[:2] if n.isdigit())
    if not _OLDEST_URLLIB3 <= numbers < _UNKNOWN_URLLIB3:
        yield WARNING, "urllib3 %s" % version, "Use urllib3 1.26 or 2: others were not tested."
    brought_by = facts.get("on_disk", {}).get("urllib3", "urllib3")
    if brought_by.lower() != "urllib3":
        says = "the package urllib3 was installed by %s" % brought_by
        yield WARNING, says, "Reinstall urllib3: stalepool does not know this library's classes."


def patches(facts: Facts) -> Answers:
    """Find the patches that are applied, and those that are not."""
    snapshot, chosen = facts["snapshot"], facts["settings"]
    if isinstance(chosen, str) or not chosen.enabled or not facts["pools"]:
        return  # another question reports it
    for name in snapshot["unpatched"]:
        remedy = "Use urllib3 1.26 or 2."
        if name.startswith("keystoneauth1.") and not facts["versions"].get("wrapt"):
            remedy = "Install wrapt 1.14 or later."
        yield ERROR, "not patched: %s" % name, remedy
    if snapshot["patched"]:
        yield OK, "patched: %s" % ", ".join(snapshot["patched"]), ""
    else:
        says = "nothing is patched, although urllib3 is loaded"
        yield ERROR, says, "Look for a line of stalepool on stderr or in the log, which says why."
    for reason in snapshot.get("fallbacks", ()):
        if reason != "patch_missing":
            remedy = "Look for its line on stderr or in the log."
            yield WARNING, "fell back to urllib3: %s" % reason, remedy


def copies(facts: Facts) -> Answers:
    """Find the copies of urllib3 inside other packages."""
    others = [name for name in facts.get("on_disk", ()) if name != "urllib3"]
    known = [name for name in others if place_of(name) is not None]
    if known:
        yield OK, "copies of urllib3, patched once they are imported: %s" % ", ".join(known), ""
    missed = [name for name in others if name not in known]
    if facts["snapshot"]["patched"]:
        missed += sorted(set(facts["pools"]) - set(facts["snapshot"]["patched"]))
    for name in missed:
        says = "a copy of urllib3 that is not patched: %s" % name
        yield WARNING, says, "Expect urllib3's own behaviour where it is used."


def order(facts: Facts) -> Answers:
    """Compare the import of urllib3 with ``monkey_patch()``."""
    if not facts["hub_at_import"]:
        return
    before, now = facts["hub_at_import"][0], facts["hub"]
    if now and not before:
        says = "%s's monkey_patch() came after urllib3 had been imported" % now
        remedy = "Call it first: locks that are made before it block every green thread."
        yield WARNING, says, remedy
    elif now:
        yield OK, "%s's monkey_patch() came before urllib3" % now, ""
    else:
        yield OK, "native threads", ""


def forks(facts: Facts) -> Answers:
    """Find forked workers whose Python is not told of the fork."""
    if facts["uwsgi"] and not {"lazy-apps", "lazy", "py-call-osafterfork"} & set(facts["uwsgi"]):
        says = "uWSGI forks its workers without telling Python"
        remedy = "Set lazy-apps or py-call-osafterfork: now workers share the master's connections."
        yield WARNING, says, remedy


def tools(facts: Facts) -> Answers:
    if facts["tools"]:
        says = "loaded beside stalepool: %s" % ", ".join(facts["tools"])
        yield OK, says + "; they work together, in any order", ""


def keepalive(facts: Facts) -> Answers:
    """Socket options, as the kernel reports them."""
    found, chosen = facts.get("socket"), facts["settings"]
    if "socket_error" in facts:
        says = "no connection could be made and examined: %s" % facts["socket_error"]
        yield WARNING, says, "Look at the other findings: stalepool may not know this urllib3."
    if found is None or isinstance(chosen, str) or not facts["snapshot"]["patched"]:
        return
    says = "on a connection of urllib3's: " + ", ".join("%s %d" % item for item in found.items())
    wanted = {
        "SO_KEEPALIVE": 1,
        "TCP_KEEPIDLE": chosen.keepalive_idle_s,
        "TCP_KEEPINTVL": chosen.keepalive_interval_s,
        "TCP_KEEPCNT": chosen.keepalive_count,
    }
    is_set = all(found.get(name) == value for name, value in wanted.items())
    if chosen.keepalive == "off" or chosen.mode == "audit" or is_set:
        yield OK, says, ""
    else:
        remedy = "Find what else sets keepalive in this process: its total is shorter, so it stays."
        yield WARNING, says, remedy


def kernel(facts: Facts) -> Answers:
    """Read the kernel's defaults, which decide how long a silent peer is waited for."""
    found, chosen = facts["sysctls"], facts["settings"]
    if not found:
        yield OK, "the kernel's defaults cannot be read here", ""
        return
    says = ", ".join("%s %d" % item for item in found.items())
    retries = found.get("tcp_retries2", 15)
    if retries < 8:  # RFC 1122 4.2.3.5: at least 100 s
        remedy = "Raise net.ipv4.tcp_retries2 to 8 at least: now a short outage ends connections."
        yield WARNING, says, remedy
    elif retries > 10 and not isinstance(chosen, str) and chosen.silence_s is None:
        remedy = "Set silence_s, or lower tcp_retries2: now a vanished peer costs 15 minutes."
        yield WARNING, says, remedy
    else:
        yield OK, says, ""


def timeouts(facts: Facts) -> Answers:
    """Find clients without a timeout."""
    for name in facts["without_timeout"]:
        remedy = "Set it: without it a POST to a peer that is gone ends after 15 minutes."
        yield WARNING, "no read timeout: %s" % name, remedy


QUESTIONS: Dict[str, Callable[[Facts], Answers]] = {
    "python": python,
    "versions": versions,
    "settings": settings,
    "start": start,
    "urllib3": urllib3,
    "patches": patches,
    "copies": copies,
    "order": order,
    "forks": forks,
    "tools": tools,
    "keepalive": keepalive,
    "kernel": kernel,
    "timeouts": timeouts,
}


def ask_all(facts: Facts) -> List[Finding]:
    """Answer every question of the table from the facts."""
    return [Finding(name, *answer) for name, ask in QUESTIONS.items() for answer in ask(facts)]
