"""``stalepool demo``: the migration incident, without the shim and with it.

A live migration has nova-compute update a port at neutron; neutron asks
nova-api, and nova-api asks neutron again, over a pooled connection that has
died meanwhile. The demo starts this chain on loopback as processes of its
own, breaks that one connection in seven ways, each without and with
stalepool, and prints what the caller saw.

This module is the whole interface to the command line. It imports the table
of cases and nothing heavier; eventlet, urllib3 and their like are imported by
the child processes alone.
"""

from __future__ import annotations

import argparse

from stalepool.cli.demo.cases import CASES

__all__ = ["add_arguments", "main"]

_DESCRIPTION = """\
Replay the incident this was made for on real sockets, without and with the
shim. Takes a minute.
"""

_EPILOG = """\
exit status: 0 every row with stalepool is as it should be, 1 one is not, or the
demo cannot go on, 2 wrong usage or a missing package, 130 stopped by Ctrl-C,
143 by SIGTERM, 129 by SIGHUP.
The two halves differ in one thing: "without" has STALEPOOL_ENABLED=0.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``stalepool demo`` to its parser."""
    cases = "\n".join(f"  {case.name:<15} {case.title}" for case in CASES)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _DESCRIPTION
    parser.epilog = f"cases:\n{cases}\n\n{_EPILOG}"
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the results as one JSON object, and nothing else, on stdout",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=[case.name for case in CASES],
        metavar="CASE",
        help="run this case only; may be given several times",
    )
    parser.add_argument(
        "--keep-logs",
        metavar="DIR",
        help="keep the logs of all processes, and haproxy's configuration, in DIR",
    )


def main(args: argparse.Namespace) -> int:
    """Run the demo. Blocks for about 40 s with all cases.

    :param args: what a parser with :func:`add_arguments` made.
    :returns: the exit status: 0, 1, 2, 130 (SIGINT), 143 (SIGTERM) or 129 (SIGHUP).
    """
    from stalepool.cli.demo.command import run_command

    return run_command(wants_json=args.json, only=args.only or [], keep_logs=args.keep_logs)
