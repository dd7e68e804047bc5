"""The faults of a pooled connection between its first request and its second."""

from __future__ import annotations

from typing import Mapping, NamedTuple

from stalepool_testing import idle_steps, steps
from stalepool_testing.script import AnswerStep, IdleStep


class Case(NamedTuple):
    """One fault.

    :ivar idle: done to the idle connection; the second request comes after the fault has arrived.
    :ivar meets: done at the second request instead of an answer; no check can help.
    """

    idle: IdleStep | None = None
    meets: AnswerStep | None = None
    over_tls: bool = False


CASES: Mapping[str, Case] = {
    "FIN while idle": Case(idle=idle_steps.CloseAfter(0)),
    "RST while idle": Case(idle=idle_steps.ResetAfter(0)),
    "half-close while idle": Case(idle=idle_steps.HalfCloseAfter(0)),
    "surplus 408 while idle": Case(idle=idle_steps.Surplus(408, seconds=0)),
    "close_notify and FIN": Case(idle=idle_steps.CloseAfter(0), over_tls=True),
    "FIN without close_notify": Case(
        idle=idle_steps.CloseAfter(0, close_notify=False), over_tls=True
    ),
    "surplus 408 over TLS": Case(idle=idle_steps.Surplus(408, seconds=0), over_tls=True),
    "black hole": Case(idle=idle_steps.BlackHole()),
    "FIN as the request arrives": Case(meets=steps.Close()),
    "RST as the request arrives": Case(meets=steps.Reset()),
    "FIN after it was processed": Case(meets=steps.ProcessThenClose()),
    "RST after it was processed": Case(meets=steps.ProcessThenReset()),
}
