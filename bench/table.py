"""``python -m bench.table PAGE.rst REPORT.json ...``: write the tables into a page of the docs.

One table for each report, between two comments of the page that say so; the rest of it stays.
"""

from __future__ import annotations

import json
import sys
from typing import List, Sequence

from bench.report import HEADER, Report, about, lines_of

BEGIN = ".. begin of the tables that bench.table writes"
END = ".. end of the tables that bench.table writes"


def as_rst(report: Report) -> str:
    """One report: what it was measured on, and its table."""
    lines = [list(HEADER)] + [line for row in report["figures"] for line in lines_of(row)]
    rows = ["\n".join(_cells(line)) for line in lines]
    quick = "**A quick run, to see that it works.** " if report["quick"] else ""
    return "%s%s.\n\n.. list-table::\n   :header-rows: 1\n\n%s\n" % (
        quick,
        about(report),
        "\n".join(rows),
    )


def _cells(line: Sequence[str]) -> List[str]:
    first, *others = (("%s" % cell).rstrip() for cell in line)
    return ["   * - %s" % first, *("     - %s" % cell for cell in others)]


def insert(page: str, tables: Sequence[str]) -> str:
    """The page with these tables in it.

    :raises ValueError: the page does not say where they go.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for tables: %r ... %r" % (BEGIN, END))
    return "".join([before, begin, "\n\n", "\n".join(tables), "\n", end, after])


def main(page_path: str, *report_paths: str) -> None:
    tables = []
    for path in report_paths:
        with open(path, encoding="utf-8") as file:
            tables.append(as_rst(json.load(file)))
    with open(page_path, encoding="utf-8") as file:
        page = insert(file.read(), tables)
    with open(page_path, "w", encoding="utf-8") as file:
        file.write(page)


if __name__ == "__main__":
    main(*sys.argv[1:])
