"""The demo's report, as text of at most 79 columns and as plain data."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from stalepool.cli.demo.cases import Case
from stalepool.cli.demo.outcome import HUNG, Answer, Impossible, Outcome, Race
from stalepool.cli.demo.plan import HUNG_AFTER_S, SHORTENED

_WIDTH = 79
_COLUMNS = (29, 17, 23, 4)
_MARKS = {True: "ok", False: "FAIL", None: "-"}

_STORY = """\
A live migration: nova-compute updates a port at neutron, neutron asks nova-api,
and nova-api asks neutron again, over a pooled connection."""


class Row(NamedTuple):
    """A case with both of its outcomes; ``ok`` is None where it cannot be shown here."""

    case: Case
    without: Outcome
    with_: Outcome

    @property
    def ok(self) -> Optional[bool]:
        return self.case.is_met(self.with_)


def heading(versions: Mapping[str, str], logs: Optional[str]) -> str:
    """Say what runs and with which settings, and head the table.

    :param logs: the directory they are kept in, None where they are not.
    """
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    settings = ", ".join(f"{name}={value}" for name, value in SHORTENED.items())
    lines = [
        _STORY,
        "",
        _wrap(f"software:  {software}", indent=11),
        "without:   the same with STALEPOOL_ENABLED=0",
        _wrap(f"with:      the defaults, but {settings}, to save time", indent=11),
    ]
    if logs is not None:
        lines.append(f"logs:      kept in {logs}")
    headings = ("case", "without stalepool", "with stalepool", "ok?")
    return "\n".join([*lines, "", _line(headings), _line(["-" * width for width in _COLUMNS])])


def row(done: Row) -> str:
    """Lay out a row of the table: two lines or more."""
    case = done.case
    with_ = _described(done.with_) + _what_it_did(done.with_)
    if case.asked and isinstance(done.with_, Answer):
        with_.append(f"neutron asked: {done.with_.asked}")
    cells = [[case.name, f"  {case.title}"], _described(done.without), with_, [_MARKS[done.ok]]]
    wrapped = [
        [piece for text in cell for piece in _wrap(text, 2, width).split("\n")]
        for cell, width in zip(cells, _COLUMNS)
    ]
    height = max(map(len, wrapped))
    padded = [cell + [""] * (height - len(cell)) for cell in wrapped]
    return "\n".join(map(_line, zip(*padded)))


def closing(rows: Sequence[Row], seconds: float, logs: Optional[str]) -> str:
    """Explain the table's words, as far as they occur in it, and give the result in one sentence.

    :param logs: the directory they are kept in, None where they are not.
    """
    remarks = [
        f"unexpected: {row.case.name} without stalepool should give: {row.case.without}."
        for row in rows
        if row.without.result != row.case.without and not isinstance(row.without, Impossible)
    ]
    outcomes = [row.with_ for row in rows] + [row.without for row in rows]  # FAILs come first
    for kind, says in (
        (Answer, "{0.status}: {0.detail}"),
        (Race, "the commonest error of the busy worker: {0.detail}"),
        (Impossible, "not possible here: {0.detail}"),
    ):
        found = [one for one in outcomes if isinstance(one, kind) and one.detail]
        remarks += [says.format(one) for one in found[:1]]
    remarks += [f"{row.case.name}: {row.case.note}" for row in rows if row.case.note]
    if any(outcome.result == HUNG for outcome in outcomes):
        remarks.append(
            f"hung: cut off by the demo after {HUNG_AFTER_S:.0f} s. Left alone, nova-api waits in a"
            " black hole for about 15 minutes, in a select until the server closes."
        )
    return "\n".join(["", *(_wrap(line, 2) for line in remarks), "", _result(rows, seconds, logs)])


def _result(rows: Sequence[Row], seconds: float, logs: Optional[str]) -> str:
    failed = [row.case.name for row in rows if row.ok is False]
    if failed:
        verdict = f"FAILED: with stalepool, {_and(failed)} did not end as expected"
        if logs is None:
            return _wrap(f"{verdict}; --keep-logs DIR keeps the logs.")
        return f"{_wrap(verdict + '; the logs are in')}\n{logs}"
    shown = [row for row in rows if row.ok]
    without = sum(row.without.result == row.case.with_ for row in shown)
    parts = []
    if shown:
        parts.append(
            f"cases that end well: {len(shown)} of {len(shown)} with stalepool,"
            f" {without} of {len(shown)} without it"
        )
    if len(shown) < len(rows):
        unshown = [row.case.name for row in rows if row.ok is None]
        parts.append(f"{_and(unshown)} cannot be shown on this machine")
    return _wrap(f"OK: {'; '.join(parts)} ({seconds:.0f} s).")


def _described(outcome: Outcome) -> List[str]:
    if isinstance(outcome, Impossible):
        return ["not possible here"]
    if isinstance(outcome, Race):
        failed = f"{outcome.failures} of {outcome.requests} fail"
        return [failed, f"median {_span(outcome.median_s)}"]
    if outcome.status is None:
        return [f"hung, over {HUNG_AFTER_S:.0f} s"]
    return [f"{outcome.status} in {_span(outcome.seconds)}"]


def _what_it_did(outcome: Outcome) -> List[str]:
    """List the shim's findings on connections, and the outcome of a replay."""
    if isinstance(outcome, Impossible):
        return []
    found = {verdict: count for verdict, count in outcome.did.judged.items() if verdict != "alive"}
    words = {"found": found, "sent again": outcome.did.replays}
    return [f"{word}: {_counted(counts)}" for word, counts in words.items() if counts]


def _counted(counters: Dict[str, int]) -> str:
    """``closed`` for a single one, ``closed 1200, reset 7`` for more."""
    if sum(counters.values()) == 1:
        return "".join(counters)
    return ", ".join(f"{name} {count}" for name, count in Counter(counters).most_common())


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _line(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, _COLUMNS)).rstrip()


def _and(names: List[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _wrap(text: str, indent: int = 0, width: int = _WIDTH) -> str:
    lines = textwrap.wrap(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)
    return "\n".join(lines)


def as_json(done: Row) -> Dict[str, Any]:
    """Turn a row into plain data; seconds rounded to milliseconds."""
    case = done.case
    return {
        "case": case.name,
        "title": case.title,
        "without": _outcome_as_json(done.without, case.without),
        "with": _outcome_as_json(done.with_, case.with_),
        "ok": done.ok,
    }


def _outcome_as_json(outcome: Outcome, expected: str) -> Dict[str, Any]:
    values: Dict[str, Any] = {"expected": expected, "result": outcome.result, **outcome._asdict()}
    values.update(values.pop("did")._asdict() if "did" in values else {})
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}
