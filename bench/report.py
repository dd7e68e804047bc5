"""The report: what was measured, as plain data; and its table, which is reStructuredText."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib import metadata
from typing import Any, Dict, List, Sequence

from bench.figures import Figure, Measured

Report = Dict[str, Any]
Row = Dict[str, Any]

_HEADER = ("figure", "unit", "floor", "stock", "ours", "ratio [95 %]", "must be", "is")
_NUMBERS = (2, 3, 4)  # columns that are set flush right
_PACKAGES = ("urllib3", "wrapt", "eventlet", "greenlet")

BEGIN, END = (".. %s of the table that bench.report writes" % word for word in ("begin", "end"))


def begin(is_quick: bool) -> Report:
    return {"machine": _machine(), "quick": is_quick, "figures": []}


def _machine() -> Dict[str, Any]:
    import stalepool

    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "cpu_model_name": models[0] if models else platform.machine(),
        "cpu_count": os.cpu_count(),
        "platform": platform.platform(),
        "python": "%s %s" % (platform.python_implementation(), platform.python_version()),
        "load_avg_1min": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
        "stalepool": stalepool.__version__,
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def load(path: str) -> Report:
    """Return a report that was written before.

    :raises OSError: it cannot be read.
    :raises ValueError: it is none.
    """
    with open(path, encoding="utf-8") as file:
        try:
            report = json.load(file)
        except ValueError:
            report = None
    if not isinstance(report, dict) or not {"machine", "quick", "figures"} <= report.keys():
        raise ValueError("%s is not what python -m bench --json writes" % path)
    return report


def row_of(figure: Figure, measured: Measured) -> Row:
    """Return a figure's entry in the report."""
    quantities = {name: quantity._asdict() for name, quantity in measured.quantities.items()}
    for name, bound in figure.bounds.items():
        is_met = bound.is_met(measured.quantities[name])
        quantities[name].update(must_be=str(bound), is_met=is_met)
    return {
        **{"name": figure.name, "title": figure.title, "unit": figure.unit},
        **{who: getattr(measured, who) for who in ("floor", "stock", "ours")},
        "quantities": quantities,
        "notes": measured.notes or {},
    }


def missed(report: Report) -> List[str]:
    """Return the bounds that are not met, each as a sentence."""
    return [
        "%s: %s is %s, must be %s" % (row["name"], name, _number(one["median"]), one["must_be"])
        for row in report["figures"]
        for name, one in row["quantities"].items()
        if not one.get("is_met", True)
    ]


def as_table(rows: Sequence[Row], is_short: bool = False) -> str:
    """Return a table, for a terminal or a page.

    :param is_short: of each figure one quantity, the first that has a bound; each has one.
    """
    lines = [list(_HEADER)] + [line for row in rows for line in _lines_of(row, is_short)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    lines.insert(0, ["=" * width for width in widths])
    lines.insert(2, lines[0])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in [*lines, lines[0]]
    )


def _lines_of(row: Row, is_short: bool) -> List[List[str]]:
    first = [row["title"], row["unit"], *(_number(row[who]) for who in ("floor", "stock", "ours"))]
    quantities = row["quantities"]
    judged_ones = [name for name, one in quantities.items() if "is_met" in one]
    lines = []
    for name in judged_ones[:1] if is_short else quantities:
        one = quantities[name]
        judged = "" if "is_met" not in one else "met" if one["is_met"] else "MISSED"
        lines.append([*first, _interval(name, one), one.get("must_be", ""), judged])
        first = [""] * len(first)
    return lines


def about(report: Report) -> str:
    """Return where and with what it was measured, in a sentence."""
    seen = report["machine"]
    versions = ", ".join("%s %s" % (name, seen[name]) for name in ("stalepool", *_PACKAGES))
    return (
        "%(platform)s; %(cpu_count)s CPUs of type %(cpu_model_name)s, load %(load_avg_1min)s; "
        "%(python)s; " % seen
    ) + "%s; %s" % (versions, seen["date"])


def insert(page: str, report: Report) -> str:
    """Return the page with the report's short table in it.

    :raises ValueError: the page does not say where it goes.
    """
    before, begin_, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin_ or not end:
        raise ValueError("the page has no place for a table: %r ... %r" % (BEGIN, END))
    quick = "**A quick run, to see that it works.** " if report["quick"] else ""
    table = as_table(report["figures"], is_short=True)
    return "%s%s\n\n%s%s.\n\n%s\n\n%s%s" % (
        *(before, begin_, quick, about(report)),
        *(table, end, after),
    )


def _interval(name: str, one: Dict[str, Any]) -> str:
    if one["low"] == one["high"]:
        return "%s: %s" % (name, _number(one["median"]))
    return "%s: %s [%s, %s]" % (name, *(_number(one[key]) for key in ("median", "low", "high")))


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else "%.3g" % value
