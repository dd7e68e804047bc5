"""The command itself: its arguments, its output, its exit status."""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.util import find_spec

from stalepool.cli.complaint import USAGE_ERROR, Complaint, say
from stalepool.cli.status import find, page, proc, report
from stalepool.cli.status.explain import explanation
from stalepool.cli.status.services import Service, services_of

WATCH_S = 2.0

ALL_WELL, NOT_ALL_WELL = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=main)
    parser.description = (
        "Show what the shim does in the processes of this machine; as root in those of "
        "all users, in containers, too. Exits with 0 if each service shown is well: a process of "
        "it has written a status, the shim is off in none, and no patch was left out; with 1 "
        "otherwise, or if there is none; with 2 if they cannot be looked at."
    )
    parser.add_argument("pids", metavar="PID", type=int, nargs="*", help="only these processes")
    parser.add_argument("--each", action="store_true", help="show every process by itself")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, with --watch repeatedly")
    form.add_argument(
        "--report", action="store_true", help="say what audit mode has found, and what to set"
    )
    form.add_argument(
        "--prometheus",
        action="store_true",
        help="print the counters of each process, for node_exporter's textfile collector; exits "
        "with 0; needs prometheus_client",
    )
    parser.add_argument("--watch", action="store_true", help="print again every 2 s, until Ctrl-C")
    parser.add_argument("--explain", action="store_true", help="say what each count means")


def main(args: argparse.Namespace) -> int:
    """Print what the processes say of themselves.

    :returns: 0 if there are services and each is well, and for ``--prometheus`` always; 1 if not.
    :raises Complaint: they cannot be looked at.
    """
    if not proc.has_proc():
        raise Complaint("there is no /proc here: it needs Linux", USAGE_ERROR)
    if proc.lacks_privilege():
        say(
            "stalepool status",
            "this root has no CAP_SYS_PTRACE, as in a container: of other users' "
            "processes only those are shown in which the shim is on, and has seen an answer",
        )
    if args.prometheus and find_spec("prometheus_client") is None:
        raise Complaint(
            "--prometheus needs prometheus_client in the Python that runs this: "
            "%s -m pip install prometheus_client" % sys.executable,
            USAGE_ERROR,
        )
    while True:
        processes = find.processes(args.pids)
        services = services_of(processes, args.each or bool(args.pids))
        if args.watch and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        print(_text(args, services))
        if not args.watch:
            is_well = bool(services) and all(service.is_well for service in services)
            return ALL_WELL if is_well or args.prometheus else NOT_ALL_WELL
        sys.stdout.flush()
        time.sleep(WATCH_S)


def _text(args: argparse.Namespace, services: list[Service]) -> str:
    if args.json:
        return json.dumps({"services": [service.as_dict() for service in services]}, indent=1)
    if args.prometheus:
        return _metrics(services)
    write = report.report if args.report else page.page
    text = write(services)
    return text + "\n\n" + explanation(services) if args.explain else text


def _metrics(services: list[Service]) -> str:
    """Return one series for each process: a sum would fall when a worker ends, as in a reset."""
    from stalepool.contrib import prometheus

    nothing = {"installed": False, "origins": {}, "fallbacks": {}}
    snapshots = [
        ((service.name, str(process.pid)), process.seen or nothing)
        for service in services
        for process in service.processes
        if process.seen or process.is_off
    ]
    return prometheus.text(prometheus.families(snapshots, ("service", "pid"))).rstrip()
