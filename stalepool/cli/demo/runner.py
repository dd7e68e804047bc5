"""Runs the cases, each without the shim and with it."""

from __future__ import annotations

from typing import Dict, Iterable, List, Optional, Tuple

from stalepool.cli.demo.cases import Case
from stalepool.cli.demo.chain import Chain
from stalepool.cli.demo.outcome import Outcome, Row, judge
from stalepool.cli.demo.processes import Processes
from stalepool.cli.demo.progress import Progress
from stalepool.cli.demo.race import run_race

#: With the defaults the black hole would have to idle for several times as long
#: until its first unanswered probe.
SHORTENED = {
    "STALEPOOL_KEEPALIVE_IDLE_S": "1",
    "STALEPOOL_KEEPALIVE_INTERVAL_S": "1",
    "STALEPOOL_KEEPALIVE_COUNT": "3",
}

_DEFAULTS: Dict[str, str] = {}


def run_cases(
    processes: Processes,
    cases: Tuple[Case, ...],
    haproxy: Optional[str],
    progress: Progress,
) -> Iterable[Row]:
    """Run the cases in order and yield a row for each.

    :param haproxy: its path, or None for the relay of our own.
    """
    chains = _start_chains(processes, cases, haproxy, progress)
    for case in cases:
        outcomes: List[Outcome] = []
        for half in ("without", "with"):
            progress.step(f"{case.name}, {half} stalepool")
            if case.fault is None:
                outcomes.append(run_race(processes, half, None if half == "without" else _DEFAULTS))
            else:
                outcomes.append(chains[half].play(case))
        without, with_ = outcomes
        yield judge(case, without, with_)


def _start_chains(
    processes: Processes, cases: Tuple[Case, ...], haproxy: Optional[str], progress: Progress
) -> Dict[str, Chain]:
    """Both halves of the chain, started side by side; none if no case needs them."""
    if all(case.fault is None for case in cases):
        return {}
    progress.step("starting the services")
    chains = {
        "without": Chain(processes, "without", haproxy, settings=None),
        "with": Chain(processes, "with", haproxy, settings=SHORTENED),
    }
    for half, chain in chains.items():
        chain.ready(with_shim=half == "with")
    return chains
