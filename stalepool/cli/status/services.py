"""Services: workers grouped by the process that forked them, and the sum of their counts."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple

from stalepool import stats
from stalepool.cli.status.find import Process


class Service(NamedTuple):
    """Processes that belong together, the oldest first."""

    processes: List[Process]

    @property
    def seen(self) -> List[Dict[str, Any]]:
        return [process.seen for process in self.processes if process.seen is not None]

    @property
    def name(self) -> str:
        return self.processes[0].command

    @property
    def is_well(self) -> bool:
        """Tell whether the shim is active in some of them, off in none, and lacks no patch."""
        is_off = any(process.is_off for process in self.processes)
        return bool(self.seen) and not is_off and not any(seen["unpatched"] for seen in self.seen)

    @property
    def is_audit(self) -> bool:
        return any(seen["mode"] == "audit" for seen in self.seen)

    @property
    def counted_for_s(self) -> float:
        """Seconds until the status was written: it holds nothing of the time after that."""
        return max((seen["written_at"] - seen["since"] for seen in self.seen), default=0.0)

    def counted(self) -> Dict[str, Any]:
        """Return ``totals``, ``fallbacks`` and ``origins``, summed over the processes.

        What was learnt of an origin is no sum: :meth:`knowledge`.
        """
        parts = [
            {key: seen[key] for key in ("totals", "fallbacks", "origins")} for seen in self.seen
        ]
        counted = stats.summed(parts)
        for origin in counted["origins"].values():
            del origin["knowledge"]
        return counted

    def knowledge(self, origin: str) -> List[Dict[str, Any]]:
        """Return what each process has learnt of an origin."""
        found = [(seen, seen["origins"].get(origin)) for seen in self.seen]
        return [
            {**entry["knowledge"], "written_at": seen["written_at"]}
            for seen, entry in found
            if entry is not None
        ]

    def as_dict(self) -> Dict[str, Any]:
        """Return plain data, with each process's own."""
        return {
            "command": self.name,
            "counted_for_s": self.counted_for_s,
            **(self.counted() if self.seen else {}),
            "processes": [
                {
                    "pid": process.pid,
                    "user": process.user,
                    "is_off": process.is_off,
                    "note": process.note,
                    "status": process.seen,
                }
                for process in self.processes
            ],
        }


def services_of(processes: List[Process], each: bool) -> List[Service]:
    """Group processes that were forked from one another.

    :param each: True: every process is a service of its own.
    """
    found: Dict[Any, List[Process]] = {}
    for process in sorted(processes, key=lambda each: (each.started, each.pid)):
        key = process.pid if each else (process.image or process.pid)
        found.setdefault(key, []).append(process)
    return [Service(together) for together in found.values()]
