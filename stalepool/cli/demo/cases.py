"""The cases of the demo, as a table.

Each case is one way in which a pooled connection dies, with the result that
is expected of urllib3 alone and of urllib3 with stalepool. A closed or reset
connection that lies idle is noticed by urllib3 as well, as long as the worker
has nothing else to do: these rows say that it survives by itself, and the
busy worker shows what is left of that under load.
"""

from __future__ import annotations

from typing import FrozenSet, List, NamedTuple, Optional, Tuple

HUNG = "hung"
SOME_FAIL = "some fail"
NONE_FAIL = "none fail"
NONE_SENT = "none sent"


class Case(NamedTuple):
    """One row of the demo.

    ``without`` and ``with_`` are the results that are expected: an HTTP
    status, or one of the words above. ``judged`` holds the verdicts the shim
    may give, empty where any will do. ``fault`` is the command to the network
    (None: the case is the race of the busy worker), ``idle_s`` the seconds
    between the fault and the request.
    """

    name: str
    title: str
    story: str
    without: str
    with_: str
    fault: Optional[str] = None
    idle_s: float = 0.0
    judged: FrozenSet[str] = frozenset()


CASES = (
    Case(
        "fin-idle",
        "closed (FIN) while idle",
        "The balancer closes the idle connection; then the request comes.",
        without="200",
        with_="200",
        fault="fin-idle",
        judged=frozenset({"closed"}),
    ),
    Case(
        "rst-idle",
        "reset (RST) while idle",
        "The idle connection is reset, as tcpkill does it; then the request comes.",
        without="200",
        with_="200",
        fault="rst-idle",
        judged=frozenset({"reset"}),
    ),
    Case(
        "surplus-408",
        "an unasked 408 lies on it",
        "The balancer writes a 408 Request Timeout on the idle connection.",
        without="200",
        with_="200",
        fault="surplus-408",
        judged=frozenset({"unread"}),
    ),
    Case(
        "fin-on-arrival",
        "closed as the request arrives",
        "The request meets the close on its way: no check can see it beforehand.",
        without="500",
        with_="200",
        fault="fin-on-arrival",
    ),
    Case(
        "rst-on-arrival",
        "reset as the request arrives",
        "The request meets the reset on its way: no check can see it beforehand.",
        without="500",
        with_="200",
        fault="rst-on-arrival",
    ),
    Case(
        "busy-worker",
        "closed while worker is busy",
        "100 green threads work 1 ms each while clients reuse connections which"
        " the server closes after a short, random idle time.",
        without=SOME_FAIL,
        with_=NONE_FAIL,
    ),
    Case(
        "black-hole",
        "silently dropped while idle",
        "A firewall forgets the idle connection: whatever is sent is swallowed.",
        without=HUNG,
        with_="200",
        fault="black-hole",
        # The first keepalive probe goes out after 1 s, the connection is given
        # up after 4 s: in between the shim must know that a probe went unanswered.
        idle_s=2.5,
        judged=frozenset({"probe_unanswered", "timed_out"}),
    ),
)


def selected(names: List[str]) -> Tuple[Case, ...]:
    """The cases of these names in the order of the table; all where no name is given."""
    return tuple(case for case in CASES if not names or case.name in names)
