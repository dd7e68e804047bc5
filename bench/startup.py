"""``import stalepool`` in a fresh interpreter, beside one that imports nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import List, NamedTuple

from bench.child import ROOT, environ

_SCRIPT = """
import sys, time  # built in: they cost nothing
before, began = len(sys.modules), time.perf_counter()
%s
took = time.perf_counter() - began
print(took, len(sys.modules) - before)
"""
_BARE, _OURS = _SCRIPT % "", _SCRIPT % "import stalepool"


class Pair(NamedTuple):
    """An interpreter that imports nothing, and one that imports stalepool, one after the other."""

    bare_cpu_s: float
    ours_cpu_s: float
    import_s: float
    modules: int


def measure(pairs: int) -> List[Pair]:
    """Start interpreters by turns; the first two only warm the caches."""
    return [_pair(number % 2 == 1) for number in range(pairs + 1)][1:]


def _pair(is_backwards: bool) -> Pair:
    if is_backwards:
        ours, bare = _start(_OURS), _start(_BARE)
    else:
        bare, ours = _start(_BARE), _start(_OURS)
    import_s, modules = ours.said.split()
    return Pair(bare.cpu_s, ours.cpu_s, float(import_s), int(modules))


class _Started(NamedTuple):
    cpu_s: float
    said: str


def _start(script: str) -> _Started:
    before = _children_cpu_s()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environ(),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return _Started(_children_cpu_s() - before, done.stdout)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
