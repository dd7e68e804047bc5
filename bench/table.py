"""``python -m bench.table PAGE.rst REPORT.json ...``: write the tables into a page of the docs.

One table for each report, between two comments of the page that say so; the rest of it stays.
"""

from __future__ import annotations

import argparse
from typing import List, Optional, Sequence

from bench.report import HEADER, Report, about, lines_of, load

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


def main(arguments: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.table", description="Write the tables of reports into a page."
    )
    parser.add_argument("page", metavar="PAGE.rst", help="has two comments between which they go")
    parser.add_argument("reports", metavar="REPORT.json", nargs="+", help="from bench --json")
    options = parser.parse_args(arguments)
    try:
        tables = [as_rst(load(path)) for path in options.reports]
        with open(options.page, encoding="utf-8") as file:
            page = insert(file.read(), tables)
        with open(options.page, "w", encoding="utf-8") as file:
            file.write(page)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
