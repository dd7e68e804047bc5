"""``python -m tests.failures``: this interpreter's cells, alone or beside those of others."""

import argparse
import json
import sys
from pathlib import Path

from docs.marks import insert

from .report import BEGIN, END, about, as_rst, is_wrong, label, run, score


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.failures",
        description="What failed operations raise, what their sockets say, and what is judged. "
        "Exit status 1 where a judgement is wrong.",
    )
    add = parser.add_argument
    add("--json", metavar="FILE", help="write this interpreter's report there")
    add("--merge", metavar="FILE", nargs="+", default=[], help="take in other reports, too")
    add("--rst", metavar="PAGE", help="write the table into this page, between its two comments")
    add("--no-run", action="store_true", help="only what --merge takes in")
    options = parser.parse_args()
    reports = [json.loads(Path(path).read_text()) for path in options.merge]
    if not options.no_run:
        report = run()
        reports = [other for other in reports if label(other) != label(report)] + [report]
        if options.json:
            Path(options.json).write_text(json.dumps(report) + "\n")
        for cell in report["cells"]:
            if is_wrong(cell) or "skipped" in cell:
                print(cell)
    if options.rst:
        page = Path(options.rst)
        page.write_text(insert(page.read_text(), BEGIN, END, as_rst(reports).rstrip("\n")))
    for report in reports:
        print("%s: right in %d of %d cells" % (about(report), *score([report])))
    return int(any(is_wrong(cell) for report in reports for cell in report["cells"]))


if __name__ == "__main__":
    sys.exit(main())
