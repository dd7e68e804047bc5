"""The outcomes of one half of a case."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Union

HUNG = "hung"
SOME_FAIL = "some fail"
NONE_FAIL = "none fail"
NONE_SENT = "none sent"
IMPOSSIBLE = "impossible"


class Did(NamedTuple):
    """The shim's counters that have grown: verdicts on connections, and outcomes of replays."""

    judged: Dict[str, int]
    replays: Dict[str, int]


class Answer(NamedTuple):
    """The answer to nova-compute's ``PUT``; ``status`` is None if it hung.

    ``asked`` is how often neutron was asked for the ports.
    """

    status: Optional[int]
    seconds: float
    detail: str
    asked: int
    did: Did

    @property
    def result(self) -> str:
        """The status as text, or ``hung``."""
        return HUNG if self.status is None else str(self.status)


class Race(NamedTuple):
    """The results of a busy worker's requests.

    ``detail`` is the text of the error that came most often.
    """

    requests: int
    failures: int
    median_s: float
    detail: str
    did: Did

    @property
    def result(self) -> str:
        """``some fail`` or ``none fail``; ``none sent`` where no client came that far."""
        sent = SOME_FAIL if self.failures else NONE_FAIL
        return sent if self.requests else NONE_SENT


class Impossible(NamedTuple):
    """The fault cannot be made on this machine."""

    detail: str

    @property
    def result(self) -> str:
        return IMPOSSIBLE


Outcome = Union[Answer, Race, Impossible]
