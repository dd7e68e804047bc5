"""Reports of any number of interpreters as one table: what is alike stands in one row."""

from __future__ import annotations

import functools
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from .faults import FAULTS
from .report import Report, is_wrong, label

BEGIN = ".. begin of the table that tests.failures writes"
END = ".. end of the table that tests.failures writes"

HEADER = ("fault", "at", "raised", "poll(0)", "judged", "seen with")

#: of one kind: TLS version, empty without -> the labels of the interpreters, in their order
Seen = Dict[str, List[str]]


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
            alike = _grouped(
                ((cell["raised"], judgement(cell)), (cell, name))
                for cell, name in cells
                if cell["raised"] != "nothing"
            )
            for (raised, judged), group in alike.items():
                polls = [cell["poll"] for cell, _ in group]
                rows.append((fault.name, side, raised, _bits(polls), judged, _seen(group, cells)))
    return rows


def _grouped(pairs: Iterable[Tuple[Any, Any]]) -> Dict[Any, List[Any]]:
    found: Dict[Any, List[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
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
    kinds_by_rest = _grouped(
        (_which(seen, possible[kind]), kind) for kind, seen in _by_kind(group).items()
    )
    if len(kinds_by_rest.get("", ())) == len(possible):
        return "all"
    return "; ".join(", ".join(kinds) + rest for rest, kinds in kinds_by_rest.items())


def _by_kind(cells: List[Any]) -> Dict[str, Seen]:
    kinds = _grouped((cell["kind"], (cell["tls"] or "", name)) for cell, name in cells)
    in_order = functools.partial(sorted, key=lambda pair: (pair[0], _in_order(pair[1])))
    return {kind: _grouped(in_order(set(seen))) for kind, seen in kinds.items()}


def _which(seen: Seen, possible: Seen) -> str:
    """Nothing where it is all of them; else which TLS versions and which interpreters."""
    if seen == possible:
        return ""
    parts = []
    for names, versions in _grouped(
        (() if names == possible[version] else tuple(names), version)
        for version, names in seen.items()
    ).items():
        words = versions if len(versions) < len(possible) else []
        parts.append(" ".join([*words, *(["on"] if words and names else []), *names]))
    return " (%s)" % ", ".join(parts)


def _in_order(name: str) -> Tuple[int, ...]:
    return tuple(int(part.rstrip("t")) for part in name.replace("+", ".").split("."))


def as_rst(reports: Sequence[Report]) -> str:
    """The interpreters, how many cells are right, and the table."""
    reports = sorted(reports, key=lambda report: _in_order(label(report)))
    lines = ["* ``%s``: %s" % (label(report), about(report)) for report in reports]
    lines += ["", "Right in %d of %d cells in which something failed." % score(reports)]
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


def score(reports: Sequence[Report]) -> Tuple[int, int]:
    """How many cells are right, of those in which something failed."""
    cells = [cell for report in reports for cell in report["cells"]]
    failed = [cell for cell in cells if cell.get("raised", "nothing") != "nothing"]
    return sum(not is_wrong(cell) for cell in failed), len(failed)


def about(report: Report) -> str:
    """One line: the interpreter and the libraries."""
    made = report["made_with"]
    libraries = ", ".join("%s %s" % pair for pair in made["libraries"].items())
    return "%s, OpenSSL %s, %s; %s" % (made["python"], made["openssl"], made["kernel"], libraries)
