"""The phases of a connection: the table of ``stalepool/connection/state.py``, and its picture.

The table is part of that module's docstring. Here stands only where in the picture each phase and
each transition is drawn; the words are the table's.
"""

from __future__ import annotations

import textwrap
from html import escape
from typing import Dict, List, NamedTuple, Tuple

from stalepool.connection import state

Point = Tuple[int, int]

WIDTH, HEIGHT = 880, 350
BOX = (104, 36)
_LABEL_WIDTH, _LINE = 16, 15  # in characters, in pixels

#: phase -> the middle of its box
PLACES: Dict[str, Point] = {
    "FRESH": (70, 60),
    "IDLE": (70, 230),
    "CHECKED": (250, 145),
    "SENDING": (460, 145),
    "WAITING": (670, 145),
    "UPGRADED": (670, 40),
}


class Way(NamedTuple):
    """An arrow, as SVG has its path, and where its label begins or has its middle."""

    path: str
    label: Point
    anchor: str = "middle"


#: (phase, next phase) -> its arrow
WAYS: Dict[Tuple[str, str], Way] = {
    ("FRESH", "CHECKED"): Way("M122,70 L208,124", (60, 116), "start"),
    ("IDLE", "CHECKED"): Way("M122,220 L208,166", (60, 186), "start"),
    ("CHECKED", "SENDING"): Way("M302,145 L404,145", (354, 122)),
    ("FRESH", "SENDING"): Way("M122,54 C280,36 410,50 444,124", (300, 18)),
    ("IDLE", "SENDING"): Way("M122,236 C280,254 410,240 444,166", (290, 262)),
    ("SENDING", "SENDING"): Way("M466,163 C446,222 520,222 494,167", (468, 232), "start"),
    ("SENDING", "WAITING"): Way("M512,145 L614,145", (564, 122)),
    ("WAITING", "WAITING"): Way("M722,138 C772,116 772,174 726,154", (768, 142), "start"),
    ("WAITING", "IDLE"): Way("M660,163 C650,345 120,345 74,252", (360, 326)),
    ("WAITING", "UPGRADED"): Way("M670,127 L670,62", (680, 90), "start"),
}

_STYLE = """
text { font: 13px sans-serif; fill: #24292f; }
.phase { font-weight: bold; }
rect { fill: #ddf4ff; stroke: #0969da; }
path { fill: none; stroke: #57606a; stroke-width: 1.5; }
marker path { fill: #57606a; stroke: none; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
rect { fill: #0c2d6b; stroke: #79c0ff; }
path { stroke: #8b949e; }
marker path { fill: #8b949e; }
}
"""

_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
    'markerHeight="7" orient="auto"><path d="M0,0 L10,5 L0,10 z"/></marker></defs>'
)


class Transition(NamedTuple):
    """A row of the table."""

    phases: Tuple[str, ...]
    event: str
    next: str
    done: str


def table() -> str:
    """Return the table as it stands in the module's docstring."""
    lines = (state.__doc__ or "").splitlines()
    borders = [number for number, line in enumerate(lines) if line.startswith("====")]
    return "\n".join(lines[borders[0] : borders[-1] + 1])


def transitions() -> List[Transition]:
    """Return the rows of the table."""
    border, _, _, *rows, _ = table().splitlines()
    starts = [at for at, sign in enumerate(border) if sign == "=" and border[at - 1 : at] != "="]
    ends = [*starts[1:], None]
    cells = [[row[start:end].strip() for start, end in zip(starts, ends)] for row in rows]
    return [Transition(tuple(c[0].split(", ")), c[1], c[2], c[3]) for c in cells]


def arrows() -> Dict[Tuple[str, str], List[str]]:
    """Return what leads from one phase to another; "(same)" is the phase itself."""
    found: Dict[Tuple[str, str], List[str]] = {}
    for row in transitions():
        for phase in row.phases:
            if phase in PLACES:
                end = phase if row.next == "(same)" else row.next
                found.setdefault((phase, end), []).append(row.event)
    return found


def picture() -> str:
    """Return the picture as SVG.

    :raises ValueError: the table has other transitions than are drawn.
    """
    found = arrows()
    if set(found) != set(WAYS):
        raise ValueError("draw or take out in docs/phases.py: %s" % (set(found) ^ set(WAYS)))
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img"' % (WIDTH, HEIGHT)
        + ' aria-label="The phases of a pooled connection, and what leads from one to the next">',
        "<style>%s</style>" % _STYLE,
        _ARROW,
    ]
    for phase, (x, y) in PLACES.items():
        corner = (x - BOX[0] // 2, y - BOX[1] // 2)
        parts.append('<rect x="%d" y="%d" width="%d" height="%d" rx="6"/>' % (*corner, *BOX))
        parts.append(_text((x, y + 5), phase, css="phase"))
    for ends, way in WAYS.items():
        parts.append('<path d="%s" marker-end="url(#arrow)"/>' % way.path)
        lines = [line for event in found[ends] for line in textwrap.wrap(event, _LABEL_WIDTH)]
        for number, line in enumerate(lines):
            x, y = way.label
            parts.append(_text((x, y + number * _LINE), line, way.anchor))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(at: Point, text: str, anchor: str = "middle", css: str = "") -> str:
    given = (*at, anchor, ' class="%s"' % css if css else "", escape(text))
    return '<text x="%d" y="%d" text-anchor="%s"%s>%s</text>' % given
