"""``python -m bench.plot REPORT.json PLOT.svg``: checkout cost against runnable green threads.

Plain SVG, drawn by hand; its colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import argparse
import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from bench.report import load

WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 90, 590, 40, 350

SIZES = (0, 10, 50, 200)  # evenly spaced: there is no 0 on a log scale
WORK_MS = ("0", "0.1", "1")
DECADES = range(-1, 7)  # of microseconds
DECADE_NAMES = ("0.1 µs", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s")

_STYLE = """
text { font: 13px sans-serif; fill: #24292f; }
.title { font-size: 15px; font-weight: bold; }
.grid { stroke: #d0d7de; }
.line { fill: none; stroke-width: 2; }
.stock { stroke: #bc4c00; } text.stock, circle.stock { fill: #bc4c00; stroke: none; }
.ours { stroke: #0969da; } text.ours, circle.ours { fill: #0969da; stroke: none; }
.floor { stroke: #6e7781; stroke-dasharray: 5 4; } text.floor { fill: #6e7781; stroke: none; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.grid { stroke: #30363d; }
.stock { stroke: #ffa657; } text.stock, circle.stock { fill: #ffa657; }
.ours { stroke: #79c0ff; } text.ours, circle.ours { fill: #79c0ff; }
.floor { stroke: #8b949e; } text.floor { fill: #8b949e; }
}
"""


class Series(NamedTuple):
    """One line: ``values`` in microseconds, one for each of :data:`SIZES`."""

    kind: str
    label: str
    values: List[float]


def series_of(report: Dict[str, Any]) -> List[Series]:
    """The lines to draw.

    :raises ValueError: the report lacks one of the figures ``eventlet`` and ``green-*``.
    """
    rows = {row["name"]: row for row in report["figures"]}

    def value(who: str, name: str) -> float:
        if name not in rows:
            raise ValueError("the report lacks the figure %s" % name)
        found: float = rows[name][who]
        return found

    def values(who: str, work_ms: str) -> List[float]:
        names = ["green-%d-%s" % (size, work_ms) for size in SIZES[1:]]
        return [value(who, name) for name in ["eventlet", *names]]

    stock = [Series("stock", "stock, %s ms each" % ms, values("stock", ms)) for ms in WORK_MS]
    ours = [Series("ours", "", values("ours", ms)) for ms in WORK_MS]
    ours[-1] = ours[-1]._replace(label="with stalepool, all three")
    return [*stock, *ours, Series("floor", "a bare poll(0)", values("floor", "0"))]


def draw(lines: List[Series]) -> str:
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img"' % (WIDTH, HEIGHT)
        + ' aria-label="Cost of one checkout against the number of runnable green threads">',
        "<style>%s</style>" % _STYLE,
        _text(LEFT, 22, "One healthy checkout under eventlet", "title"),
        *_axes(),
    ]
    for line in lines:
        parts += _line(line)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes() -> List[str]:
    parts = []
    for decade, name in zip(DECADES, DECADE_NAMES):
        y = _y(10.0**decade)
        ends = (LEFT, y, RIGHT, y)
        parts.append('<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>' % ends)
        parts.append(_text(LEFT - 8, y + 4, name, anchor="end"))
    for index, size in enumerate(SIZES):
        parts.append(_text(_x(index), BOTTOM + 20, str(size), anchor="middle"))
    below = "runnable green threads, each working 0, 0.1 or 1 ms a turn"
    parts.append(_text((LEFT + RIGHT) / 2, BOTTOM + 44, below, anchor="middle"))
    parts.append(
        '<text transform="translate(18 %d) rotate(-90)" text-anchor="middle">'
        "time for one checkout (log scale)</text>" % ((TOP + BOTTOM) / 2)
    )
    return parts


def _line(line: Series) -> List[str]:
    points = [(_x(index), _y(value)) for index, value in enumerate(line.values)]
    path = " ".join("%.1f,%.1f" % point for point in points)
    parts = ['<polyline class="line %s" points="%s"/>' % (line.kind, path)]
    if line.kind != "floor":
        parts += [
            '<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>' % (line.kind, *p) for p in points
        ]
    x, y = points[-1]
    return [*parts, _text(x + 10, y + 4, line.label, line.kind)]


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    given = (x, y, css, anchor, text)
    return '<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>' % given


def _x(index: int) -> float:
    return LEFT + 20 + index * (RIGHT - LEFT - 20) / (len(SIZES) - 1)


def _y(microseconds: float) -> float:
    share = (math.log10(microseconds) - DECADES[0]) / (DECADES[-1] - DECADES[0])
    return BOTTOM - share * (BOTTOM - TOP)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.plot", description="Draw checkout cost from a report."
    )
    parser.add_argument("report", metavar="REPORT.json", help="from python -m bench --json")
    parser.add_argument("plot", metavar="PLOT.svg", help="is written")
    options = parser.parse_args(arguments)
    try:
        drawing = draw(series_of(load(options.report)))
        with open(options.plot, "w", encoding="utf-8") as file:
            file.write(drawing)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
