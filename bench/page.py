"""``python -m bench.page REPORT.json PAGE.rst`` writes the table into the page."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any, Dict, List, Sequence

from bench import report

BEGIN, END = ".. the figures begin", ".. the figures end"


def table(found: Dict[str, Any]) -> str:
    """The figures as a reStructuredText list table, headed by machine and versions."""
    lines = [
        "Measured on %s." % report.about(found),
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "",
    ]
    rows: List[Sequence[str]] = [report.HEADER]
    for row in found["figures"]:
        rows += report.lines_of(row)
    for cells in rows:
        for number, cell in enumerate(cells):
            lines.append(("   %s - %s" % ("*" if number == 0 else " ", cell)).rstrip())
    return "\n".join([*textwrap.wrap(lines[0], 98), *lines[1:]])


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m bench.page REPORT.json PAGE.rst", file=sys.stderr)
        return 2
    with open(arguments[0], encoding="utf-8") as file:
        found = json.load(file)
    with open(arguments[1], encoding="utf-8") as file:
        page = file.read()
    before, _, rest = page.partition(BEGIN + "\n")
    _, _, after = rest.partition(END + "\n")
    with open(arguments[1], "w", encoding="utf-8") as file:
        file.write("%s%s\n\n%s\n\n%s\n%s" % (before, BEGIN, table(found), END, after))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
