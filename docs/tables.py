"""Tables of the pages, each written from the table of the code that it shows.

``python -m docs.tables`` writes them and the picture of the phases. With ``--check`` it writes
nothing, and exits with 1 if a file is stale. In its page a table stands between two comments that
name it.

No sentence is kept here. Those on settings, verdicts and fallbacks stand in their tables; those on
the rules, which ``stalepool status --explain`` prints, too, in ``stalepool.cli.status.explain``.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from itertools import zip_longest
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence

from docs import marks, phases
from stalepool import control, summary
from stalepool.cli.status.explain import remedy_for, words_for
from stalepool.connection.move import MOVE_REASONS
from stalepool.connection.request_rules import DEATH_RULES, REPLAY_RULES
from stalepool.contrib.counters import counters
from stalepool.fallback import REASONS
from stalepool.settings import SETTINGS, Settings, contradictions
from stalepool.sockets.verdict import Verdict

REPOSITORY = Path(__file__).resolve().parent.parent

BEGIN, END = (".. %s of the table %%s that docs.tables writes" % word for word in ("begin", "end"))
MARKS = re.compile((BEGIN % r"(\S+)").replace(".. ", r"\.\. "))

#: settings that keep others from having an effect, one example for each sentence
CONTRADICTIONS: Sequence[Dict[str, Any]] = (
    {"keepalive": "off", "keepalive_count": 9},
    {"replay": "off", "silence_s": 20},
    {"silence_s": 5},
    {"max_idle_s": 60, "nonidempotent_max_idle_s": 90},
)


# -- one function for each table -------------------------------------------------------------------


def settings() -> str:
    """The settings, for the README."""
    rows = [
        (_literal(name), _default(default), _marked(meaning))
        for name, (_, default, meaning) in SETTINGS.items()
    ]
    return table(("setting", "default", "what it does"), rows, limits=(None, None, 58))


def settings_in_full() -> str:
    """The same, with what each accepts."""
    rows = [
        (_literal(name), _default(default), kind.accepts, _marked(meaning))
        for name, (kind, default, meaning) in SETTINGS.items()
    ]
    return table(("setting", "default", "accepts", "what it does"), rows, (None, None, 26, 52))


def contradicting_settings() -> str:
    rows = [
        (
            _literal(" ".join("%s=%s" % item for item in chosen.items())),
            _marked("; ".join(contradictions(Settings(**chosen)))),
        )
        for chosen in CONTRADICTIONS
    ]
    return table(("for example", "what is said"), rows, (None, 65))


def verdicts() -> str:
    rows = [
        (_literal(v.value), v.action.value, _marked(v.meaning), _marked(remedy_for(v.value)))
        for v in Verdict
    ]
    return table(("verdict", "action", "meaning", "what to do"), rows, (None, None, 42, 42))


def moves() -> str:
    return _explained("reason", MOVE_REASONS)


def ends_in_a_request() -> str:
    return _explained("reason", ["failed_in_request", "silent_in_request"])


def death_rules() -> str:
    return _explained("rule", DEATH_RULES, "refuses, because")


def replay_rules() -> str:
    return _explained("rule", REPLAY_RULES, "refuses, because")


def fallbacks() -> str:
    return _explained("reason", REASONS)


def metrics() -> str:
    """The counters as Prometheus names them."""
    rows = [
        ("``stalepool_%s_total{%s}``" % (m.name, ",".join(m.labels)), _marked(m.help))
        for m in counters(control.snapshot())
    ]
    active = "1 if urllib3 is patched; in multiprocess mode the number of such processes"
    rows.append(("``stalepool_active``", active))
    return table(("metric", "what it counts"), rows, (None, 58))


#: page -> the tables in it, by name
PAGES: Dict[str, Dict[str, Callable[[], str]]] = {
    "README.rst": {"settings": settings},
    "docs/operating.rst": {
        "settings-in-full": settings_in_full,
        "contradictions": contradicting_settings,
        "fallbacks": fallbacks,
        "metrics": metrics,
    },
    "docs/status.rst": {
        "verdicts": verdicts,
        "moves": moves,
        "ends-in-a-request": ends_in_a_request,
    },
    "docs/replay.rst": {"death-rules": death_rules, "replay-rules": replay_rules},
    "docs/theory.rst": {"phases": phases.table},
}

PICTURE = "docs/phases.svg"


# -- how a table is set ----------------------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[str]], limits: Sequence[Any]) -> str:
    """Set a simple table.

    :param limits: the most characters in a line of each column; None: its cells are not wrapped.
        The first column's never are: a line that begins with a word begins a row.
    """
    cells = [[_wrapped(cell, limit) for cell, limit in zip(row, limits)] for row in (header, *rows)]
    widths = [max(len(line) for cell in column for line in cell) for column in zip(*cells)]
    border = " ".join("=" * width for width in widths)
    first, *others = ["\n".join(_lines(row, widths)) for row in cells]
    return "\n".join([border, first, border, *others, border])


def _wrapped(cell: str, limit: Optional[int]) -> List[str]:
    if limit is None:
        return [cell]
    return textwrap.wrap(cell, limit, break_long_words=False, break_on_hyphens=False)


def _lines(row: Sequence[List[str]], widths: Sequence[int]) -> Iterator[str]:
    for parts in zip_longest(*row, fillvalue=""):
        yield " ".join(part.ljust(width) for part, width in zip(parts, widths)).rstrip()


def _explained(title: str, names: Iterable[str], meaning: str = "meaning") -> str:
    rows = [(_literal(n), _marked(words_for(n)), _marked(remedy_for(n))) for n in names]
    return table((title, meaning, "what to do"), rows, (None, 50, 45))


def _literal(text: str) -> str:
    return "``%s``" % text


def _marked(sentence: str) -> str:
    """Set names of settings, counters and the like as literals."""
    return re.sub(r"(Keep-Alive: )?\b\w+=[\w.]+\b|\b[A-Za-z]+_\w+\b", r"``\g<0>``", sentence)


def _default(value: Any) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return "%g" % value if is_number else _literal(summary.shown(value))


# -- the pages -------------------------------------------------------------------------------------


def insert(page: str, name: str, new: str) -> str:
    """Return a page with a table put between its comments.

    :raises ValueError: the page lacks them.
    """
    return marks.insert(page, BEGIN % name, END % name, new)


def stale(root: Path = REPOSITORY) -> Dict[Path, str]:
    """Return the files that are stale, each with what it should hold."""
    wanted = {root / PICTURE: phases.picture()}
    for name, tables in PAGES.items():
        text = (root / name).read_text("utf-8")
        for of_the_page, make in tables.items():
            text = insert(text, of_the_page, make())
        wanted[root / name] = text
    return {
        path: text
        for path, text in wanted.items()
        if not path.exists() or path.read_text("utf-8") != text
    }


def main(arguments: Optional[Sequence[str]] = None, root: Path = REPOSITORY) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m docs.tables", description="Write the tables of the pages from the code's."
    )
    parser.add_argument("--check", action="store_true", help="only say which files are stale")
    is_check = parser.parse_args(arguments).check
    found = stale(root)
    for path, text in found.items():
        if is_check:
            name = path.relative_to(root)
            print("%s is stale: run python -m docs.tables" % name, file=sys.stderr)
        else:
            path.write_text(text, "utf-8")
    return 1 if is_check and found else 0


if __name__ == "__main__":
    sys.exit(main())
