"""What the demo prints: a header, a table, one closing sentence. ASCII, at most 100 columns."""

from __future__ import annotations

import textwrap
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from stalepool.cli.demo.cases import HUNG, NONE_FAIL
from stalepool.cli.demo.chain import HUNG_AFTER_S
from stalepool.cli.demo.outcome import IMPOSSIBLE, Answer, Impossible, Outcome, Race, Row
from stalepool.cli.demo.race import PLAN

_WIDTH = 100
_COLUMNS = (31, 24, 32, 4)
_HEADINGS = ("case", "without stalepool", "with stalepool", "ok?")
_WELL = ("200", NONE_FAIL)
_MARKS = {True: "ok", False: "FAIL", None: "-"}


class Setup(NamedTuple):
    """What the demo ran on.

    ``versions`` by package; ``shortened``: setting -> (value in the demo, default); ``logs``: the
    directory they are kept in, None where they are not.
    """

    versions: Dict[str, str]
    balancer: str
    shortened: Dict[str, Tuple[str, str]]
    logs: Optional[str]


def header(setup: Setup) -> str:
    """What runs, and in which way it differs from a production set-up."""
    versions = ", ".join(f"{name} {version}" for name, version in setup.versions.items())
    shortened = ", ".join(
        f"{name}={value} (default {default})" for name, (value, default) in setup.shortened.items()
    )
    lines = [
        "A live migration: nova-compute updates a port at neutron, neutron asks nova-api,",
        "and nova-api asks neutron again, over a pooled connection that has died meanwhile.",
        "",
        _wrap(f"software:   {versions}", indent=12),
        f"balancer:   {setup.balancer}",
        "without:    the same processes with STALEPOOL_ENABLED=0",
    ]
    if shortened:
        lines.append(_wrap(f"shortened:  {shortened}", indent=12))
    if setup.logs is not None:
        lines.append(f"logs:       kept in {setup.logs}")
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> str:
    """The table; a case takes two lines or more."""
    rule = "-+-".join("-" * width for width in _COLUMNS)
    lines = [_line(_HEADINGS), rule]
    for row in rows:
        lines += _row(row)
    return "\n".join([*lines, rule])


def remarks(rows: Sequence[Row]) -> str:
    """What the table's words mean, as far as they occur in it."""
    halves = [("with", row.with_) for row in rows] + [("without", row.without) for row in rows]
    outcomes = [outcome for _, outcome in halves]  # a FAIL's is the first of a kind
    lines = [
        f"unexpected: {row.case.name} without stalepool should give: {row.case.without}."
        for row in rows
        if row.without.result not in (row.case.without, IMPOSSIBLE)
    ]
    errors = [o for o in outcomes if isinstance(o, Answer) and o.detail]
    if errors:
        lines.append(f"{errors[0].status}: {errors[0].detail}")
    if any(outcome.result == HUNG for outcome in outcomes):
        lines.append(
            "hung: cut off by the demo. Left alone, the balancer answers 504 after 120 s"
            " and nova-api goes on waiting for about 15 minutes."
        )
    if any(isinstance(outcome, Race) for outcome in outcomes):
        lines.append(
            "busy-worker: {clients:.0f} clients, {busy:.0f} green threads with {work:.0f} ms of"
            " work each, a server that closes connections idle for {min_pause_s:g} to"
            " {max_pause_s:g} s.".format(work=PLAN["work_s"] * 1000, **PLAN)
        )
    reasons = [(half, o.detail) for half, o in halves if isinstance(o, Race) and o.detail]
    if reasons:
        lines.append("busy-worker {} stalepool, the commonest error: {}".format(*reasons[0]))
    return "".join(_wrap(line, indent=2) + "\n" for line in lines)


def closing(rows: Sequence[Row], seconds: float, logs: Optional[str]) -> str:
    """The result in one sentence.

    :param logs: the directory the logs are kept in, None where they are not.
    """
    failed = [row.case.name for row in rows if row.ok is False]
    if failed:
        verdict = f"FAILED: with stalepool, {_and(failed)} did not end as expected"
        if logs is None:
            return _wrap(f"{verdict}; --keep-logs DIR keeps the logs of all processes.")
        return f"{_wrap(verdict + '; the logs of all processes are in')}\n{logs}"
    impossible = [row.case.name for row in rows if isinstance(row.with_, Impossible)]
    with_, without = (
        sum(outcome.result in _WELL for outcome in outcomes)
        for outcomes in zip(*((row.with_, row.without) for row in rows))
    )
    parts = []
    if with_:
        parts.append(
            f"cases that end well: {with_} of {len(rows)} with stalepool,"
            f" {without} of {len(rows)} without it"
        )
    if impossible:
        parts.append(f"{_and(impossible)} cannot be shown on this machine")
    return _wrap(f"OK: {'; '.join(parts)} ({seconds:.0f} s).")


def _row(row: Row) -> List[str]:
    without = _describe(row.without)
    if row.without.result == "200":
        without.append("survives by itself")
    with_ = _describe(row.with_) + _judgement(row.with_)
    cells = [[row.case.name, f"  {row.case.title}"], without, with_, [_MARKS[row.ok]]]
    wrapped = [
        [piece for text in cell for piece in _wrap(text, 2, width).split("\n")]
        for cell, width in zip(cells, _COLUMNS)
    ]
    height = max(len(cell) for cell in wrapped)
    padded = [cell + [""] * (height - len(cell)) for cell in wrapped]
    return [_line(line) for line in zip(*padded)]


def _describe(outcome: Outcome) -> List[str]:
    if isinstance(outcome, Impossible):
        return ["not possible here:", outcome.reason]
    if isinstance(outcome, Race):
        return [
            f"{outcome.per_thousand:.1f} per 1000 fail",
            f"p50 {_span(outcome.p50_s)}, p99 {_span(outcome.p99_s)}",
        ]
    if outcome.status is None:
        return [f"hung, over {HUNG_AFTER_S:.0f} s"]
    return [f"{outcome.status} in {_span(outcome.seconds)}"]


def _judgement(outcome: Outcome) -> List[str]:
    """What the shim judged of the connections, and what became of a replay."""
    if isinstance(outcome, Impossible):
        return []
    judged, replays = _counted(outcome.judged), _counted(outcome.replays)
    return [f"judged: {judged}"] + ([f"replayed: {replays}"] if replays else [])


def _counted(counters: Dict[str, int]) -> str:
    """``closed`` for a single one, ``closed 1200, alive 677`` for more."""
    if sum(counters.values()) == 1:
        return "".join(name for name, count in counters.items() if count)
    most_first = sorted(counters.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count}" for name, count in most_first)


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _line(cells: Sequence[str]) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(cells, _COLUMNS))
    return " | ".join(padded).rstrip()


def _and(names: List[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _wrap(text: str, indent: int = 0, width: int = _WIDTH) -> str:
    lines = textwrap.wrap(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)
    return "\n".join(lines)
