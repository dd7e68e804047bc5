"""``python -m bench.plot REPORT.json FILE.svg``: the cost of a checkout against busy green threads.

Written by hand as SVG, so that it needs nothing and reads on light and dark pages.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Dict, List, Sequence, Tuple

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 90, 190, 50, 60
CROWDS = (0, 10, 50, 200)
#: the work of each green thread in ms -> the dash of its line
WORKS = {"0": "2 4", "0.1": "7 4", "1": "none"}
COLORS = {"stock": "#d1495b", "ours": "#2e86ab"}
NAMES = {"stock": "urllib3's own check", "ours": "stalepool"}
DECADES = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)  # us

Points = List[Tuple[int, float]]


def curves(report: Dict[str, Any]) -> Dict[Tuple[str, str], Points]:
    """(who, work in ms) -> the crowd's size and the median in us, with the idle hub first."""
    rows = {row["name"]: row for row in report["figures"]}
    found: Dict[Tuple[str, str], Points] = {}
    for who in COLORS:
        for work in WORKS:
            names = ["eventlet", *("green-%d-%s" % (crowd, work) for crowd in CROWDS[1:])]
            found[who, work] = [(c, rows[name][who]) for c, name in zip(CROWDS, names)]
    return found


def svg(report: Dict[str, Any]) -> str:
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" '
        'font-size="13" fill="#808080">' % (WIDTH, HEIGHT),
        _text(LEFT, 24, "One checkout of a healthy pooled connection, eventlet", size=16),
        *_axes(),
    ]
    for (who, work), points in curves(report).items():
        path = " ".join("%.1f,%.1f" % (_x(crowd), _y(cost)) for crowd, cost in points)
        parts.append(
            '<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5" '
            'stroke-dasharray="%s"/>' % (path, COLORS[who], WORKS[work])
        )
    parts += _legend()
    return "\n".join([*parts, "</svg>", ""])


def _axes() -> List[str]:
    parts = []
    for cost in DECADES:
        label = "%g us" % cost if cost < 1e3 else "%g ms" % (cost / 1e3)
        parts.append(_line(LEFT, _y(cost), WIDTH - RIGHT, _y(cost)))
        parts.append(_text(LEFT - 8, _y(cost) + 4, label, anchor="end"))
    for crowd in CROWDS:
        parts.append(_text(_x(crowd), HEIGHT - BOTTOM + 20, str(crowd), anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, _text(middle, HEIGHT - 14, "runnable green threads", anchor="middle")]


def _legend() -> List[str]:
    parts, x, y = [], WIDTH - RIGHT + 16, TOP + 10
    for who, color in COLORS.items():
        parts.append(_line(x, y - 4, x + 24, y - 4, color, 4))
        parts.append(_text(x + 32, y, NAMES[who]))
        y += 24
    for work, dash in WORKS.items():
        parts.append(_line(x, y - 4, x + 24, y - 4, "#808080", 2, dash))
        parts.append(_text(x + 32, y, "%s ms of work each" % work))
        y += 24
    return parts


def _x(crowd: int) -> float:
    return LEFT + 20 + (WIDTH - LEFT - RIGHT - 40) * CROWDS.index(crowd) / (len(CROWDS) - 1)


def _y(cost_us: float) -> float:
    low, high = math.log10(DECADES[0]), math.log10(DECADES[-1])
    share = (math.log10(cost_us) - low) / (high - low)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 13) -> str:
    form = '<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d">%s</text>'
    return form % (x, y, anchor, size, text)


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    color: str = "#80808055",
    width: float = 1,
    dash: str = "none",
) -> str:
    return (
        '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g" '
        'stroke-dasharray="%s"/>' % (x1, y1, x2, y2, color, width, dash)
    )


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m bench.plot REPORT.json FILE.svg", file=sys.stderr)
        return 2
    with open(arguments[0], encoding="utf-8") as file:
        drawn = svg(json.load(file))
    with open(arguments[1], "w", encoding="utf-8") as file:
        file.write(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
