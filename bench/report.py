"""The report: what was measured, as plain data, and its table."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Sequence

from bench import machine
from bench.figures import Figure
from bench.measures import Measured

Report = Dict[str, Any]
Row = Dict[str, Any]

HEADER = ("figure", "unit", "floor", "stock", "ours", "ratio [95 %]", "must be", "")

_MET, _MISSED = "met", "MISSED"


def begin(is_quick: bool) -> Report:
    return {"machine": machine.describe(), "quick": is_quick, "figures": []}


def load(path: str) -> Report:
    """A report that was written before.

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
    """A figure's entry in the report."""
    return {
        "name": figure.name,
        "title": figure.title,
        "unit": figure.unit,
        "floor": measured.floor,
        "stock": measured.stock,
        "ours": measured.ours,
        "quantities": {
            name: {
                **quantity.as_dict(),
                **(
                    {"must_be": str(figure.bounds[name]), "is_met": _is_met(figure, name, measured)}
                    if name in figure.bounds
                    else {}
                ),
            }
            for name, quantity in measured.quantities.items()
        },
        "notes": measured.notes or {},
    }


def _is_met(figure: Figure, name: str, measured: Measured) -> bool:
    return figure.bounds[name].is_met(measured.quantities[name])


def missed(report: Report) -> List[str]:
    """The bounds that are not met, each as a sentence."""
    return [
        "%s: %s is %s, must be %s" % (row["name"], name, _number(one["median"]), one["must_be"])
        for row in report["figures"]
        for name, one in row["quantities"].items()
        if not one.get("is_met", True)
    ]


def lines_of(row: Row) -> List[List[str]]:
    """A figure's lines in the table, a cell for each of :data:`HEADER`: one line a quantity."""
    first = [row["title"], row["unit"], *(_number(row[who]) for who in ("floor", "stock", "ours"))]
    lines = []
    for name, one in row["quantities"].items():
        judged = "" if "is_met" not in one else _MET if one["is_met"] else _MISSED
        lines.append([*first, _interval(name, one), one.get("must_be", ""), judged])
        first = [""] * len(first)
    return lines


def as_text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    lines = [list(HEADER)] + [line for row in rows for line in lines_of(row)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


_NUMBERS = (2, 3, 4)


def about(report: Report) -> str:
    """Where and with what it was measured, in a sentence."""
    seen = dict(report["machine"])
    versions = ", ".join(
        "%s %s" % (name, seen[name])
        for name in ("stalepool", "urllib3", "wrapt", "eventlet", "greenlet")
    )
    return "%s; %s CPUs of type %s, load %s; %s %s; %s; %s" % (
        seen["platform"],
        seen["cpu_count"],
        seen.get("cpu_model_name", "unknown"),
        seen.get("load_avg_1min", "unknown"),
        {"cpython": "CPython"}.get(seen["python_implementation"], seen["python_implementation"]),
        seen["python_version"],
        versions,
        seen["date"],
    )


def _interval(name: str, one: Dict[str, Any]) -> str:
    if one["low"] == one["high"]:
        return "%s: %s" % (name, _number(one["median"]))
    return "%s: %s [%s, %s]" % (name, *(_number(one[key]) for key in ("median", "low", "high")))


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return "%.3g" % value
