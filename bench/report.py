"""The report: what was measured, as plain data; and its table, which is reStructuredText."""

from __future__ import annotations

import contextlib
import json
import platform
from importlib import metadata
from typing import Any, Dict, List, Sequence

import pyperf

from bench.figures import Figure, Measured
from bench.quantity import is_met, of_samples
from docs import marks

Report = Row = Dict[str, Any]

_HEADER = ("figure", "unit", "floor", "stock", "ours", "ratio [95 %]", "must be", "is")
_THREE = ("floor", "stock", "ours")
_NUMBERS = (2, 3, 4)  # columns that are set flush right
_PACKAGES = ("stalepool", "urllib3", "wrapt", "eventlet", "greenlet")

BEGIN, END = (".. %s of the table that bench.report writes" % word for word in ("begin", "end"))


def begin(is_quick: bool) -> Report:
    """Return a report without figures: where and with what they are measured."""
    import stalepool

    seen = pyperf.Run([1.0]).get_metadata()
    machine = {
        **{key: seen[key] for key in ("cpu_model_name", "cpu_count", "platform", "load_avg_1min")},
        "python": "%s %s" % (platform.python_implementation(), platform.python_version()),
        "date": str(seen["date"])[:10],
        "stalepool": stalepool.__version__,
        **{name: metadata.version(name) for name in _PACKAGES[1:]},
    }
    return {"machine": machine, "quick": is_quick, "figures": []}


def load(path: str) -> Report:
    """Return a report that was written before.

    :raises OSError, ValueError: it cannot be read, or is none.
    """
    with open(path, encoding="utf-8") as file, contextlib.suppress(ValueError):
        report = json.load(file)
        if isinstance(report, dict) and {"machine", "quick", "figures"} <= report.keys():
            return report
    raise ValueError("%s is not what python -m bench --json writes" % path)


def row_of(figure: Figure, measured: Measured) -> Row:
    """Return a figure's entry in the report."""
    notes = measured.pop("notes", {})
    found = {k: of_samples(one) if isinstance(one, list) else one for k, one in measured.items()}
    quantities: Dict[str, Any] = {name: found[name]._asdict() for name in figure.quantities}
    for name, bound in figure.quantities.items():
        if bound:
            quantities[name].update(must_be=bound, is_met=is_met(bound, found[name].median))
    factor = 1e6 if figure.unit == "us" else 1
    return {
        **{"name": figure.name, "title": figure.title, "unit": figure.unit},
        **{who: factor * found[who].median if who in found else None for who in _THREE},
        "quantities": quantities,
        "notes": notes,
    }


def missed(report: Report) -> List[str]:
    """Return the bounds that are not met, each as a sentence."""
    return [
        "%s: %s is %s, must be %s" % (row["name"], name, _number(one["median"]), one["must_be"])
        for row in report["figures"]
        for name, one in row["quantities"].items()
        if not one.get("is_met", True)
    ]


def text(report: Report) -> str:
    """Return a sentence on where and with what it was measured, and the table."""
    machine, is_quick = report["machine"], report["quick"]
    lines = [_HEADER, *map(_line, report["figures"])]
    widths = [max(map(len, column)) for column in zip(*lines)]
    rule = ["=" * width for width in widths]
    table = "\n".join(
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in (rule, lines[0], rule, *lines[1:], rule)
    )
    return "%s%s; %s CPUs of type %s, load %s; %s; %s; %s.\n\n%s" % (
        "**A quick run, to see that it works.** " if is_quick else "",
        *(machine[key] for key in ("platform", "cpu_count", "cpu_model_name", "load_avg_1min")),
        machine["python"],
        ", ".join("%s %s" % (name, machine[name]) for name in _PACKAGES),
        *(machine["date"], table),
    )


def insert(page: str, report: Report) -> str:
    """Return the page with the report in it.

    :raises ValueError: the page does not say where it goes.
    """
    return marks.insert(page, BEGIN, END, text(report))


def _line(row: Row) -> Sequence[str]:
    """Of each figure the quantity that says most: the first that has a bound."""
    name, one = next((name, q) for name, q in row["quantities"].items() if "is_met" in q)
    ratio = "%s: %s" % (name, _number(one["median"]))
    if one["low"] != one["high"]:
        ratio += " [%s, %s]" % (_number(one["low"]), _number(one["high"]))
    three = (_number(row[who]) for who in ("floor", "stock", "ours"))
    judged = "met" if one["is_met"] else "MISSED"
    return (row["title"], row["unit"], *three, ratio, one["must_be"], judged)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else "%.3g" % value
