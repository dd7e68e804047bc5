"""The plot of checkout cost against runnable green threads, of a report.

Plain SVG; its colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import math
from typing import Any, Dict

LEFT, RIGHT, BOTTOM = 90, 590, 350
SIZES = (0, 10, 50, 200)  # evenly spaced: there is no 0 on a log scale
DECADES = ("0.1 µs", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s")
STEP = 310 / (len(DECADES) - 1)

#: of each line: whose it is, the work of each thread in ms, its label
LINES = (
    *(("stock", work_ms, "stock, %s ms each" % work_ms) for work_ms in ("0", "0.1", "1")),
    *(("ours", work_ms, "") for work_ms in ("0", "0.1")),
    *(("ours", "1", "with stalepool, all three"), ("floor", "0", "a bare poll(0)")),
)

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 430" role="img" \
aria-label="Cost of one checkout against the number of runnable green threads">
<style>
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
</style>
<text x="90" y="22" class="title">One healthy checkout under eventlet</text>
<text x="340" y="394" text-anchor="middle">runnable green threads, each working 0, 0.1 or 1 ms a \
turn</text>
<text transform="translate(18 195) rotate(-90)" text-anchor="middle">time for one checkout (log \
scale)</text>"""


def draw(report: Dict[str, Any]) -> str:
    """Return the drawing.

    :raises ValueError: the report lacks one of the figures ``check-eventlet`` and ``green-*``.
    """
    rows = {row["name"]: row for row in report["figures"]}
    xs = [LEFT + 20 + index * (RIGHT - LEFT - 20) / 3 for index in range(len(SIZES))]
    parts = [_HEAD, *(_text(x, BOTTOM + 20, str(size), "middle") for x, size in zip(xs, SIZES))]
    for decade, name in enumerate(DECADES):
        y = BOTTOM - decade * STEP
        parts.append('<path class="grid" d="M%d %.1fH%d"/>' % (LEFT, y, RIGHT))
        parts.append(_text(LEFT - 8, y + 4, name, "end"))
    for who, work_ms, label in LINES:
        names = ["check-eventlet", *("green-%d-%s" % (size, work_ms) for size in SIZES[1:])]
        if not rows.keys() >= set(names):
            raise ValueError("the report lacks one of the figures %s" % ", ".join(names))
        ys = [BOTTOM - (math.log10(rows[name][who]) + 1) * STEP for name in names]
        path = " ".join("%.1f,%.1f" % point for point in zip(xs, ys))
        parts.append('<polyline class="line %s" points="%s"/>' % (who, path))
        for point in zip(xs, ys) if who != "floor" else ():
            parts.append('<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>' % (who, *point))
        parts.append(_text(xs[-1] + 10, ys[-1] + 4, label, "start", who))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str, css: str = "") -> str:
    given = (x, y, css, anchor, text)
    return '<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>' % given
