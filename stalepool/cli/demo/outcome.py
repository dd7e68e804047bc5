"""What came out of one half of a case, and whether it is as it should be."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional, Union

from stalepool.cli.demo.cases import HUNG, NONE_FAIL, SOME_FAIL, Case

#: With the check alone, this fraction of urllib3's own failures may remain in
#: the race of the busy worker; with replay none.
TOLERATED_WITHOUT_REPLAY = 0.1

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
    """What became of the requests of a busy worker; latencies in seconds."""

    requests: int
    failures: int
    p50_s: float
    p99_s: float
    judged: Dict[str, int]
    replays: Dict[str, int]

    @property
    def per_thousand(self) -> float:
        """Failures per thousand requests."""
        return 1000.0 * self.failures / max(self.requests, 1)

    @property
    def result(self) -> str:
        """``some fail`` or ``none fail``."""
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
    """A case with both of its outcomes; ``ok`` is None where nothing is demanded."""

    case: Case
    without: Outcome
    with_: Outcome
    ok: Optional[bool]


def judge(case: Case, without: Outcome, with_: Outcome, replay: bool) -> Row:
    """Hold the outcome with the shim against what the case demands.

    :param replay: whether this stalepool sends a request again by itself.
    """
    return Row(case, without, with_, _meets(case, without, with_, replay))


def _meets(case: Case, without: Outcome, with_: Outcome, replay: bool) -> Optional[bool]:
    if isinstance(with_, Impossible) or (case.needs_replay and not replay):
        return None
    if isinstance(with_, Race) and isinstance(without, Race):
        tolerated = 0.0 if replay else TOLERATED_WITHOUT_REPLAY * without.per_thousand
        return with_.requests > 0 and with_.per_thousand <= tolerated
    seen = {verdict for verdict, count in with_.judged.items() if count}
    return with_.result == case.with_ and (not case.judged or bool(seen & case.judged))


def as_json(row: Row) -> Dict[str, Any]:
    """A row as plain data; seconds rounded to milliseconds."""
    case = row.case
    return {
        "case": case.name,
        "title": case.title,
        "story": case.story,
        "needs_replay": case.needs_replay,
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
