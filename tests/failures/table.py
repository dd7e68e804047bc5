"""Reports of any number of interpreters as one table: what is alike stands in one row."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Sequence, Set, Tuple

from docs import marks

from .faults import FAULTS
from .report import Report, is_wrong, label

BEGIN = ".. begin of the table that tests.failures writes"
END = ".. end of the table that tests.failures writes"

HEADER = ("fault", "at", "raised", "poll(0)", "judged", "seen with")

#: one interpreter's view of one kind: (TLS version or None, label of the interpreter)
Seen = Set[Tuple[Any, str]]


def judgement(cell: Dict[str, Any]) -> str:
    judged = cell["judged"]
    words = {True: "ended", False: "not ended", None: "-"}.get(judged, str(judged))
    if cell["begun"]:
        words += ", answer begun" if cell["begun"] is True else ", %s" % cell["begun"]
    return words + " (wrong)" if is_wrong(cell) else words


def rows_of(reports: Sequence[Report]) -> List[Tuple[str, ...]]:
    """The rows below ``HEADER``; cells in which nothing failed, or that were skipped, have none."""
    rows = []
    for fault in FAULTS:
        for side in fault.sides:
            cells = [
                (cell, label(report))
                for report in reports
                for cell in report["cells"]
                if (cell["fault"], cell["side"]) == (fault.name, side) and "skipped" not in cell
            ]
            for (raised, judged), group in _alike(cells).items():
                polls = [cell["poll"] for cell, _ in group]
                rows.append((fault.name, side, raised, _bits(polls), judged, _seen(group, cells)))
    return rows


def _alike(cells: Iterable[Tuple[Dict[str, Any], str]]) -> Dict[Tuple[str, str], List[Any]]:
    found: Dict[Tuple[str, str], List[Any]] = {}
    for cell, name in cells:
        if cell["raised"] != "nothing":
            found.setdefault((cell["raised"], judgement(cell)), []).append((cell, name))
    return found


def _bits(polls: Sequence[str]) -> str:
    """The events that were there each time, and in brackets those that were there at times."""
    sets = [set(poll.split()) for poll in polls]
    order = ("nothing", "IN", "RDHUP", "HUP", "ERR")
    always = [bit for bit in order if all(bit in one for one in sets)]
    at_times = [bit for bit in order if bit not in always and any(bit in one for one in sets)]
    return " ".join(always + (["(%s)" % " ".join(at_times)] if at_times else []))


def _seen(group: List[Any], cells: List[Any]) -> str:
    """The kinds, those that have the same to add to them together."""
    possible = _by_kind(cells)
    kinds_by_rest: Dict[str, List[str]] = {}
    for kind, seen in _by_kind(group).items():
        kinds_by_rest.setdefault(_which(seen, possible[kind]), []).append(kind)
    if [len(kinds) for kinds in kinds_by_rest.values()] == [len(possible)] and "" in kinds_by_rest:
        return "all"
    return "; ".join(", ".join(kinds) + rest for rest, kinds in kinds_by_rest.items())


def _by_kind(cells: List[Any]) -> Dict[str, Seen]:
    found: Dict[str, Seen] = {}
    for cell, name in cells:
        found.setdefault(cell["kind"], set()).add((cell["tls"], name))
    return found


def _which(seen: Seen, possible: Seen) -> str:
    """Nothing where it is all of them; else which TLS versions and which interpreters."""
    if seen == possible:
        return ""
    by_names: Dict[Tuple[str, ...], List[str]] = {}
    for version in sorted({version for version, _ in possible}, key=str):
        names = _names(seen, version)
        if names:
            complete = names == _names(possible, version)
            by_names.setdefault(() if complete else names, []).append(version)
    versions = {version for version, _ in possible}
    parts = []
    for names, spoken in by_names.items():
        words = [version for version in spoken if version]
        if len(spoken) == len(versions):
            words = []
        parts.append(" ".join([*words, *(["on"] if words and names else []), *names]))
    return " (%s)" % ", ".join(parts)


def _names(seen: Seen, version: Any) -> Tuple[str, ...]:
    return tuple(sorted((name for other, name in seen if other == version), key=_in_order))


def _in_order(name: str) -> Tuple[int, ...]:
    return tuple(int(part.rstrip("t")) for part in name.replace("+", ".").split("."))


def as_rst(reports: Sequence[Report]) -> str:
    """The interpreters, how many cells are right, and the table."""
    reports = sorted(reports, key=lambda report: _in_order(label(report)))
    lines = ["* ``%s``: %s" % (label(report), about(report)) for report in reports]
    cells = [cell for report in reports for cell in report["cells"] if "raised" in cell]
    failed = [cell for cell in cells if cell["raised"] != "nothing"]
    right = sum(not is_wrong(cell) for cell in failed)
    lines += ["", "Right in %d of %d cells in which something failed." % (right, len(failed))]
    lines += ["", ".. list-table::", "   :header-rows: 1", ""]
    before: Tuple[str, ...] = ("", "")
    for row in [HEADER, *rows_of(reports)]:
        fault, side, raised, *others = row
        if row is not HEADER:
            raised = "``%s``" % raised
        shown = ("", "") if row[:2] == before else (fault if fault != before[0] else "", side)
        before = row[:2]
        first, *rest = (*shown, raised, *others)
        lines += ["   * - %s" % first, *("     - %s" % cell for cell in rest)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def about(report: Report) -> str:
    """One line: the interpreter and the libraries."""
    made = report["made_with"]
    libraries = ", ".join("%s %s" % pair for pair in made["libraries"].items())
    return "%s, OpenSSL %s, %s; %s" % (made["python"], made["openssl"], made["kernel"], libraries)


def insert(page: str, table: str) -> str:
    """The page with this table in it.

    :raises ValueError: the page does not say where it goes.
    """
    return marks.insert(page, BEGIN, END, table.rstrip("\n"))
