"""What came out of one half of a case, and whether it is as it should be."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional, Union

from stalepool.cli.demo.cases import HUNG, NONE_FAIL, NONE_SENT, SOME_FAIL, Case

IMPOSSIBLE = "impossible"


class Answer(NamedTuple):
    """What nova-compute saw of its ``PUT``; ``status`` is None where it hung."""

    status: Optional[int]
    seconds: float
    detail: str
    judged: Dict[str, int]
    replays: Dict[str, int]

    @property
    def result(self) -> str:
        """The status as text, or ``hung``."""
        return HUNG if self.status is None else str(self.status)


class Race(NamedTuple):
    """What became of the requests of a busy worker; latencies in seconds.

    ``detail`` is the text of the error that came most often.
    """

    requests: int
    failures: int
    p50_s: float
    p99_s: float
    detail: str
    judged: Dict[str, int]
    replays: Dict[str, int]

    @property
    def per_thousand(self) -> float:
        """Failures per thousand requests."""
        return 1000.0 * self.failures / max(self.requests, 1)

    @property
    def result(self) -> str:
        """``some fail`` or ``none fail``; ``none sent`` where no client came that far."""
        if not self.requests:
            return NONE_SENT
        return SOME_FAIL if self.failures else NONE_FAIL


class Impossible(NamedTuple):
    """The fault cannot be made on this machine."""

    reason: str

    @property
    def result(self) -> str:
        """``impossible``."""
        return IMPOSSIBLE


Outcome = Union[Answer, Race, Impossible]


class Row(NamedTuple):
    """A case with both of its outcomes; ``ok`` is None where the fault cannot be made."""

    case: Case
    without: Outcome
    with_: Outcome
    ok: Optional[bool]


def judge(case: Case, without: Outcome, with_: Outcome) -> Row:
    """Hold the outcome with the shim against what the case demands."""
    return Row(case, without, with_, _meets(case, with_))


def _meets(case: Case, with_: Outcome) -> Optional[bool]:
    if isinstance(with_, Impossible):
        return None
    seen = {verdict for verdict, count in with_.judged.items() if count}
    return with_.result == case.with_ and (not case.judged or bool(seen & case.judged))


def as_json(row: Row) -> Dict[str, Any]:
    """A row as plain data; seconds rounded to milliseconds."""
    case = row.case
    return {
        "case": case.name,
        "title": case.title,
        "story": case.story,
        "without": {"expected": case.without, **_outcome_as_json(row.without)},
        "with": {"expected": case.with_, **_outcome_as_json(row.with_)},
        "ok": row.ok,
    }


def _outcome_as_json(outcome: Outcome) -> Dict[str, Any]:
    data: Dict[str, Any] = {"result": outcome.result}
    for name, value in outcome._asdict().items():
        data[name] = round(value, 3) if isinstance(value, float) else value
    if isinstance(outcome, Race):
        data["failures_per_thousand"] = round(outcome.per_thousand, 1)
    return data
