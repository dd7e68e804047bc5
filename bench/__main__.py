"""The command ``python -m bench``: measure, print the table, and judge it where asked to."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import List, Optional, Sequence

try:
    from bench import plot, report
    from bench.child import ChildFailed
    from bench.figures import FIGURES, Figure
except ImportError as error:
    sys.exit("python -m bench: %s; what it needs comes by: pip install '.[bench]'" % error)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for figure in FIGURES:
            print("%-14s %s" % (figure.name, figure.title))
        return 0
    try:
        if options.docs:
            _write_docs(Path(options.docs))
            return 0
        if options.json:
            open(options.json, "a").close()  # now, and not after a quarter of an hour
    except (OSError, ValueError) as error:
        parser.error(str(error))
    chosen = [figure for figure in FIGURES if _is_asked_for(figure.name, options.names)]
    if not chosen:
        parser.error("there is no figure %s; --list names them" % " ".join(options.names))
    return _run(chosen, options)


def _parser() -> argparse.ArgumentParser:
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
    return parser


def _is_asked_for(figure: str, names: Sequence[str]) -> bool:
    return not names or any(figure == name or figure.startswith(name + "-") for name in names)


def _write_docs(docs: Path) -> None:
    """Write the table and the plot of ``performance.json`` beside it."""
    found = report.load(str(docs / "performance.json"))
    page = docs / "performance.rst"
    table, plotted = report.insert(page.read_text("utf-8"), found), plot.draw(found)
    page.write_text(table, "utf-8")
    (docs / "checkout-cost.svg").write_text(plotted, "utf-8")


def _run(figures: Sequence[Figure], options: argparse.Namespace) -> int:
    result = report.begin(options.quick)
    failed: List[str] = []
    is_interrupted = False
    try:
        for figure in figures:
            _measure(figure, result, failed)
    except KeyboardInterrupt:
        print("interrupted; what follows was measured until then", file=sys.stderr)
        is_interrupted = True
    if result["figures"]:
        print("%s\n\n%s" % (report.about(result), report.as_table(result["figures"])))
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    missed = report.missed(result) if options.check else []
    for sentence in [*("%s: could not be measured" % name for name in failed), *missed]:
        print(sentence, file=sys.stderr)
    return 130 if is_interrupted else 1 if failed or missed else 0


def _measure(figure: Figure, result: report.Report, failed: List[str]) -> None:
    print(figure.title, "...", file=sys.stderr, flush=True)
    try:
        result["figures"].append(report.row_of(figure, figure.measure(result["quick"])))
    except ChildFailed as error:
        failed.append(figure.name)
        print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
