"""The plot of checkout cost against runnable green threads, of a report.

Plain SVG, drawn by hand; its colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Sequence, Tuple

WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 90, 590, 40, 350

SIZES = (0, 10, 50, 200)  # evenly spaced: there is no 0 on a log scale
WORK_MS = ("0", "0.1", "1")
DECADES = ("0.1 µs", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s")

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


def draw(report: Dict[str, Any]) -> str:
    """Return the drawing.

    :raises ValueError: the report lacks one of the figures ``check-eventlet`` and ``green-*``.
    """
    rows = {row["name"]: row for row in report["figures"]}

    def line(who: str, work_ms: str, label: str) -> List[str]:
        names = ["check-eventlet", *("green-%d-%s" % (size, work_ms) for size in SIZES[1:])]
        if not rows.keys() >= set(names):
            raise ValueError("the report lacks one of the figures %s" % ", ".join(names))
        return _line(who, label, [rows[name][who] for name in names])

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img"' % (WIDTH, HEIGHT)
        + ' aria-label="Cost of one checkout against the number of runnable green threads">',
        "<style>%s</style>" % _STYLE,
        _text(LEFT, 22, "One healthy checkout under eventlet", "title"),
        *_axes(),
    ]
    for work_ms in WORK_MS:
        parts += line("stock", work_ms, "stock, %s ms each" % work_ms)
    for work_ms, label in zip(WORK_MS, ("", "", "with stalepool, all three")):
        parts += line("ours", work_ms, label)
    return "\n".join([*parts, *line("floor", "0", "a bare poll(0)"), "</svg>"]) + "\n"


def _axes() -> List[str]:
    parts = []
    for decade, name in enumerate(DECADES):
        y = _y(10.0 ** (decade - 1))
        ends = (LEFT, y, RIGHT, y)
        parts.append('<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>' % ends)
        parts.append(_text(LEFT - 8, y + 4, name, anchor="end"))
    for index, size in enumerate(SIZES):
        parts.append(_text(_x(index), BOTTOM + 20, str(size), anchor="middle"))
    below = "runnable green threads, each working 0, 0.1 or 1 ms a turn"
    return [
        *parts,
        _text((LEFT + RIGHT) / 2, BOTTOM + 44, below, anchor="middle"),
        '<text transform="translate(18 %d) rotate(-90)" text-anchor="middle">'
        "time for one checkout (log scale)</text>" % ((TOP + BOTTOM) / 2),
    ]


def _line(kind: str, label: str, values: Sequence[float]) -> List[str]:
    points: List[Tuple[float, float]] = [(_x(i), _y(value)) for i, value in enumerate(values)]
    path = " ".join("%.1f,%.1f" % point for point in points)
    dots = points if kind != "floor" else []
    return [
        '<polyline class="line %s" points="%s"/>' % (kind, path),
        *('<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>' % (kind, *point) for point in dots),
        _text(points[-1][0] + 10, points[-1][1] + 4, label, kind),
    ]


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    given = (x, y, css, anchor, text)
    return '<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>' % given


def _x(index: int) -> float:
    return LEFT + 20 + index * (RIGHT - LEFT - 20) / (len(SIZES) - 1)


def _y(microseconds: float) -> float:
    share = (math.log10(microseconds) + 1) / (len(DECADES) - 1)
    return BOTTOM - share * (BOTTOM - TOP)
