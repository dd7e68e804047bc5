"""The case of the busy worker: a race between its requests and the server's closes.

Under eventlet urllib3's own check of a pooled connection makes two full laps
of the hub. With 100 green threads that work 1 ms each that takes a fifth of a
second, in which the server may close what was just found alive.
"""

from __future__ import annotations

import json
import subprocess
from typing import Dict, Mapping, Optional

from stalepool.cli.demo.outcome import Race
from stalepool.cli.demo.processes import DemoError, Processes, address_of, listener, to_text

PLAN: Dict[str, float] = {
    "seconds": 8.0,
    "clients": 300,
    "busy": 100,
    "work_s": 0.001,
    "min_pause_s": 0.5,
    "max_pause_s": 1.5,
}

_BACKLOG = 1024
_PATIENCE_S = 60.0


def run_race(processes: Processes, name: str, settings: Optional[Mapping[str, str]]) -> Race:
    """Run one half. Blocks for ``PLAN["seconds"]`` and the start of two processes.

    :param name: appended to the names of the logs.
    :param settings: stalepool's settings in the worker, or None: without it.
    """
    sock = listener(_BACKLOG)
    address = to_text(address_of(sock))
    idle_s = (str(PLAN["min_pause_s"]), str(PLAN["max_pause_s"]))
    server = processes.start(
        f"race-server-{name}", "race_server", str(sock.fileno()), *idle_s, serves=[sock]
    )
    clients = processes.start(
        f"race-clients-{name}",
        "race_clients",
        *(address, json.dumps(PLAN)),
        settings=settings,
        talks=True,
    )
    try:
        printed, _ = clients.communicate(timeout=PLAN["seconds"] + _PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise DemoError("the busy worker does not come to an end") from error
    if clients.returncode:
        raise processes.explain("the busy worker failed")
    if server.poll() is not None:
        raise processes.explain("the busy worker has lost its server")
    for process in (clients, server):
        processes.stop(process)
    data = json.loads(printed)
    if data["shim"] != (settings is not None):
        raise DemoError("the busy worker has stalepool where it should not, or the reverse")
    return Race(
        requests=data["requests"],
        failures=data["failures"],
        detail=data["detail"],
        p50_s=data["p50_s"],
        p99_s=data["p99_s"],
        judged=data["verdicts"],
        replays=data["replays"],
    )
