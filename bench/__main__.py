"""The command ``python -m bench``: measure, print the table, and judge it where asked to."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import List, Optional, Sequence

try:
    from bench import plot, report
    from bench.figures import FIGURES, Figure
    from bench.processes import ChildFailed
except ImportError as error:
    sys.exit("python -m bench: %s; what it needs comes by: pip install '.[bench]'" % error)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="What stalepool costs, beside stock urllib3 and beside a bare poll(0).",
    )
    add = parser.add_argument
    add("names", nargs="*", help="these figures, and all whose names go on with a dash")
    add("--quick", action="store_true", help="few rounds: only to see it work")
    add("--check", action="store_true", help="exit with 1 where a bound is missed")
    add("--json", metavar="FILE", help="write the report there as well")
    add("--list", action="store_true", help="name the figures, and measure nothing")
    add("--docs", metavar="DIR", help="measure nothing: bring page and plot there to the report's")
    options = parser.parse_args(arguments)
    beginnings = tuple(name + "-" for name in options.names) or ""
    chosen = [figure for figure in FIGURES if (figure.name + "-").startswith(beginnings)]
    if not chosen:
        parser.error("there is no figure %s; --list names them" % " ".join(options.names))
    if options.list:
        print("\n".join("%-14s %s" % (figure.name, figure.title) for figure in FIGURES))
        return 0
    try:
        if options.docs:
            _write_docs(Path(options.docs))
            return 0
        if options.json:
            open(options.json, "a").close()  # now, and not after a quarter of an hour
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return _run(chosen, options)


def _write_docs(docs: Path) -> None:
    """Write the table and the plot of ``performance.json`` beside it."""
    found, page = report.load(str(docs / "performance.json")), docs / "performance.rst"
    inserted, plotted = report.insert(page.read_text("utf-8"), found), plot.draw(found)
    page.write_text(inserted, "utf-8")
    (docs / "checkout-cost.svg").write_text(plotted, "utf-8")


def _run(figures: Sequence[Figure], options: argparse.Namespace) -> int:
    result = report.begin(options.quick)
    failed: List[str] = []
    status = 0
    try:
        for figure in figures:
            print(figure.title, "...", file=sys.stderr, flush=True)
            try:
                measured = figure.measure(options.quick)
            except ChildFailed as error:
                failed.append("%s: could not be measured: %s" % (figure.name, error))
            else:
                result["figures"].append(report.row_of(figure, measured))
    except KeyboardInterrupt:
        print("interrupted; what follows was measured until then", file=sys.stderr)
        status = 130
    if result["figures"]:
        print(report.text(result))
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    failed += report.missed(result) if options.check else []
    print("".join(sentence + "\n" for sentence in failed), end="", file=sys.stderr)
    return status or bool(failed)


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith("STALEPOOL_")]:
        del os.environ[name]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the reader goes away, as under "| head"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an import is to be timed as services have it
    sys.exit(main())
