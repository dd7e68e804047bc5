"""The cases of the demo: what happens to a pooled connection, and what must come of it. One table.

A closed or reset connection that lies idle is noticed by urllib3 as well, as long as the worker has
nothing else to do; the busy worker shows what is left of that under load.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Callable, List, NamedTuple, Optional, Tuple

from stalepool.cli.demo.outcome import HUNG, NONE_FAIL, SOME_FAIL, Answer, Impossible, Outcome
from stalepool.cli.demo.plan import ANSWERED_AFTER_S, AWAY_S, BUSY, CLIENTS, PAUSE_S, WORK_S
from stalepool.cli.demo.scene import PORTS, Scene
from stalepool_testing import (
    AnswerStep,
    Blackout,
    Close,
    CloseAfter,
    Exchange,
    FaultServer,
    IdleStep,
    Reset,
    ResetAfter,
    Surplus,
)

Do = Callable[[Scene], object]


class Case(NamedTuple):
    """One row.

    ``without`` and ``with_`` are the results that are expected: an HTTP status, or a word of
    ``outcome``. ``do`` is done to the pooled connection, ``idle_s`` seconds before the request;
    None makes nova-api a busy worker. ``judged`` is the verdict the shim has to give, empty where
    any will do; ``asked`` how often neutron may be asked, 0 where that is not looked at.
    """

    name: str
    title: str
    without: str
    with_: str
    do: Optional[Do]
    judged: str = ""
    idle_s: float = 0.0
    asked: int = 0
    note: str = ""

    def is_met(self, outcome: Outcome) -> Optional[bool]:
        """Hold an outcome with stalepool against the row; None where it cannot be shown here."""
        if isinstance(outcome, Impossible):
            return None
        if self.asked and isinstance(outcome, Answer) and outcome.asked != self.asked:
            return False
        is_judged = not self.judged or self.judged in outcome.did.judged
        return outcome.result == self.with_ and is_judged


def while_idle(step: IdleStep) -> Do:
    """Do it to the connection now."""
    return lambda scene: scene.neutron.perform(step, scene.pooled)


def on_arrival(step: AnswerStep) -> Do:
    """Do it to the next request."""
    return lambda scene: scene.planned.append(step)


def lose(scene: Scene) -> None:
    """Have what nova-api sends on the connection swallowed from now on."""
    scene.neutron.add(Blackout(), only_open=True)


def lose_while_waiting(scene: Scene) -> None:
    """Have the path go away once the next request has arrived, and come back."""
    Blackout().check(socket.AF_INET)
    scene.planned.append(AnswerAfterOutage(scene.neutron))


@dataclass(frozen=True)
class AnswerAfterOutage(AnswerStep):
    """Neutron's answer to nova-api once the path, which goes away meanwhile, is back."""

    server: FaultServer

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        with self.server.add(Blackout()):
            exchange.channel.pause(AWAY_S)
        exchange.channel.pause(ANSWERED_AFTER_S)
        exchange.respond(200, PORTS)


def yield_in_select(scene: Scene) -> None:
    """Have nova-api run other green threads in the midst of its next green ``select()``."""
    scene.nova.tell("/demo/yield")


_BUSY = (
    f"{CLIENTS} clients, {BUSY} green threads with {WORK_S * 1000:.0f} ms of work each, a server"
    f" that closes connections idle for {PAUSE_S[0]} to {PAUSE_S[1]} s."
)
_AWAY = (
    f"after the request arrives nothing gets through for {AWAY_S:.0f} s, new connections neither;"
    " then the answer comes. It has to be waited for, and asked for once."
)
_SELECT = (
    "other green threads run while urllib3's own check asks a green select(timeout=0), which then"
    " sleeps until the server closes (eventlet issue 798)."
)

CASES = (
    Case("fin-idle", "closed (FIN) while idle", "200", "200", while_idle(CloseAfter(0)), "closed"),
    Case("rst-idle", "reset (RST) while idle", "200", "200", while_idle(ResetAfter(0)), "reset"),
    Case("surplus-408", "an unasked 408 lies on it", "200", "200", while_idle(Surplus()), "unread"),
    Case("fin-on-arrival", "closed as request arrives", "500", "200", on_arrival(Close())),
    Case("rst-on-arrival", "reset as request arrives", "500", "200", on_arrival(Reset())),
    Case("busy-worker", "closed while worker is busy", SOME_FAIL, NONE_FAIL, None, note=_BUSY),
    # its first keepalive probe leaves after 1 s
    Case("black-hole", "silently dropped while idle", HUNG, "200", lose, "probe_unanswered", 2.5),
    Case(
        "path-away", "path away in a request", "200", "200", lose_while_waiting, asked=1, note=_AWAY
    ),
    Case("select-hang", "green select sleeps on", HUNG, "200", yield_in_select, note=_SELECT),
)


def selected(names: List[str]) -> Tuple[Case, ...]:
    """The cases of these names in the order of the table; all where no name is given."""
    return tuple(case for case in CASES if not names or case.name in names)
