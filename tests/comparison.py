"""``python -m tests.comparison``: runs the conformance suite, and writes docs/comparison.rst.

Installs the newest release of each client, in environments of its own.
"""

import argparse
import ast
import datetime
import os
import platform
import subprocess
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from docs import marks
from stalepool_testing.conformance.cases import CASES

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "comparison.rst"
BEGIN = ".. begin of the tables that tests.comparison writes"
END = ".. end of the tables that tests.comparison writes"

#: niquests brings a urllib3 of its own, which gets into the other's place
ENVIRONMENTS = [["urllib3", "requests", "httpx", "aiohttp"], ["niquests"]]
TOLD = ["urllib3", "requests", "httpx", "aiohttp", "niquests", "stalepool"]


class Column(NamedTuple):
    client: str
    with_stalepool: bool = False

    def __str__(self):
        return self.client + (" with stalepool" if self.with_stalepool else "")


BOTH = [Column(client, is_on) for client in ("urllib3", "requests") for is_on in (False, True)]
COLUMNS = [*BOTH, Column("httpx"), Column("aiohttp"), Column("niquests")]


def run_suite(python, column, directory):
    """Run the suite in an environment; returns (case, method) -> what it said."""
    report = directory / "report.xml"
    words = ["--pyargs", "stalepool_testing.conformance", "--client", column.client]
    done = subprocess.run(
        [python, "-m", "pytest", "-p", "pytest_stalepool", f"--junitxml={report}", *words],
        cwd=directory,
        env={**os.environ, "STALEPOOL": "1" if column.with_stalepool else "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode not in (0, 1):  # 1: some case is not survived
        raise RuntimeError(f"{column}: pytest says\n{done.stdout}")
    values = (found.get("value") for found in ElementTree.parse(report).iter("property"))
    return {(case, method): said for case, method, said in map(ast.literal_eval, values)}


def in_a_word(said):
    if said.startswith("took"):
        return "wrong answer"
    return said if said == "ok" or said.startswith("sent") else "error"


def table(method, results):
    """A table of what each client makes of a request in each case."""
    rows = [[method, *(column.client for column in results)]]
    rows.append(["", *("with stalepool" if column.with_stalepool else "" for column in results)])
    for case in CASES:
        said = [cells.get((case, method), "not run") for cells in results.values()]
        rows.append([case, *map(in_a_word, said)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([rule, *lines[:2], rule, *lines[2:], rule])


def main():
    argparse.ArgumentParser(prog="python -m tests.comparison", description=__doc__).parse_args()
    results, versions = {}, {}
    for clients in ENVIRONMENTS:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            venv.create(directory / "venv", with_pip=True)
            python = str(directory / "venv" / "bin" / "python")
            pip = [python, "-m", "pip", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", "-q", f"{REPOSITORY}[testing]", *clients], check=True)
            listed = subprocess.check_output([*pip, "list", "--format=freeze"], text=True)
            versions.update(line.split("==") for line in listed.split())
            for column in COLUMNS:
                if column.client in clients:
                    print(column, flush=True)
                    results[column] = run_suite(python, column, directory)
    about = [f"{name} {versions[name]}" for name in TOLD]
    where = f"CPython {platform.python_version()}, {platform.system()} {platform.release()}"
    tables = [
        f"{', '.join(about)}; {where}; {datetime.date.today()}.",
        *(table(method, results) for method in ("GET", "POST")),
    ]
    PAGE.write_text(marks.insert(PAGE.read_text(), BEGIN, END, "\n\n".join(tables)))


if __name__ == "__main__":
    main()
