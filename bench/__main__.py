"""``python -m bench``: measure, print the table, and judge it where asked to."""

from __future__ import annotations

import argparse
import json
import sys
from typing import List, Optional, Sequence

try:
    from bench import report
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
    chosen = [figure for figure in FIGURES if _is_asked_for(figure, options.only)]
    if not chosen:
        parser.error("there is no figure %s; --list names them" % " ".join(options.only))
    if options.json:
        try:
            open(options.json, "a").close()  # now, and not after a quarter of an hour
        except OSError as error:
            parser.error("--json: %s" % error)
    return _run(chosen, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="What stalepool costs, beside stock urllib3 and beside a bare poll(0).",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="this figure, or all whose names begin with NAME and a dash; may be given repeatedly",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: only to see it work")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bound is missed")
    parser.add_argument("--json", metavar="FILE", help="write the report there as well")
    parser.add_argument("--list", action="store_true", help="name the figures, and measure nothing")
    return parser


def _is_asked_for(figure: Figure, only: Optional[List[str]]) -> bool:
    return not only or any(
        figure.name == name or figure.name.startswith(name + "-") for name in only
    )


def _run(figures: Sequence[Figure], options: argparse.Namespace) -> int:
    result = report.begin(options.quick)
    failed: List[str] = []
    try:
        for figure in figures:
            _measure(figure, result, failed)
    except KeyboardInterrupt:
        print("interrupted; what follows was measured until then", file=sys.stderr)
        _write(result, options.json)
        return 130
    _write(result, options.json)
    return _verdict(result, failed, options.check)


def _measure(figure: Figure, result: report.Report, failed: List[str]) -> None:
    print(figure.title, "...", file=sys.stderr, flush=True)
    try:
        measured = figure.measure(result["quick"])
    except ChildFailed as error:
        failed.append(figure.name)
        print(error, file=sys.stderr)
    else:
        result["figures"].append(report.row_of(figure, measured))


def _write(result: report.Report, path: Optional[str]) -> None:
    if not result["figures"]:
        return
    print(report.about(result))
    print()
    print(report.as_text(result["figures"]))
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


def _verdict(result: report.Report, failed: Sequence[str], is_checked: bool) -> int:
    for name in failed:
        print("%s: could not be measured" % name, file=sys.stderr)
    missed = report.missed(result) if is_checked else []
    for sentence in missed:
        print(sentence, file=sys.stderr)
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
