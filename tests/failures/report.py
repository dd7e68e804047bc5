"""All kinds of one interpreter, each in a process of its own, as one report of plain data.

Reports of any number of interpreters make one table: what is alike stands in one row.
"""

import contextlib
import importlib.util
import json
import operator
import os
import platform
import ssl
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

from .faults import FAULTS, KINDS

#: the folder from which ``tests.failures`` and ``stalepool`` are imported
ROOT = Path(__file__).resolve().parent.parent.parent


def present():
    """The kinds whose libraries this interpreter has."""
    return [name for name, kind in KINDS.items() if importlib.util.find_spec(kind.needs)]


def run():
    """Every cell of the kinds that are present, and what they were made with.

    :raises RuntimeError: a child failed, with what it said.
    """
    # the cells are about the socket: urllib3 stays as it is
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    environ = dict(os.environ, PYTHONPATH=path, STALEPOOL_ENABLED="0")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "tests.failures.cells"]
    children = {
        name: subprocess.Popen([*command, name], cwd=str(ROOT), env=environ, **pipes)
        for name in present()
    }
    # all of them are waited for, whatever one says
    said = {name: child.communicate() for name, child in children.items()}
    failed = ["%s: %s" % (name, said[name][1]) for name in said if children[name].returncode]
    if failed:
        raise RuntimeError("\n".join(failed))
    cells = [cell for output, _ in said.values() for cell in json.loads(output)]
    return {"made_with": made_with(), "cells": cells}


def made_with():
    """Versions of all that has a say in what is raised."""
    libraries = {}
    for name in ("urllib3", "eventlet", "gevent", "pyOpenSSL"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            libraries[name] = metadata.version(name)
    if "pyOpenSSL" in libraries:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography's opinion of an old Python
            from OpenSSL import SSL
        # it has an OpenSSL of its own
        libraries["pyOpenSSL's OpenSSL"] = SSL.SSLeay_version(0).decode().split()[1]
    python = platform.python_version() + getattr(sys, "abiflags", "")
    return {
        "python": "%s %s" % (platform.python_implementation(), python),
        "openssl": ssl.OPENSSL_VERSION.split()[1],
        "kernel": "%s %s" % (platform.system(), platform.release().split("-")[0]),
        "libraries": libraries,
    }


def is_wrong(cell):
    """The judgement is not what is right; a cell in which nothing failed has none."""
    return (cell.get("judged"), cell.get("begun")) != (cell.get("right"), cell.get("begun_right"))


def label(report):
    """Short name of an interpreter: ``3.13+3.5`` is Python 3.13 with OpenSSL 3.5."""
    python, openssl = report["made_with"]["python"].split()[1], report["made_with"]["openssl"]
    minor = [".".join(version.split(".")[:2]) for version in (python, openssl)]
    return ("t+" if python.endswith("t") else "+").join(minor)


# -- the table ------------------------------------------------------------------------------------

BEGIN = ".. begin of the table that tests.failures writes"
END = ".. end of the table that tests.failures writes"

HEADER = ("fault", "at", "raised", "poll(0)", "judged", "seen with")


def judgement(cell):
    words = "ended" if cell["judged"] else "not ended"
    words += ", answer begun" if cell.get("begun") else ""
    return words + " (wrong)" if is_wrong(cell) else words


def rows_of(reports):
    """The rows below ``HEADER``; cells in which nothing failed, or that were skipped, have none."""
    rows = []
    for case in [(fault.name, side) for fault in FAULTS for side in fault.sides]:
        cells = [
            (cell, label(report))
            for report in reports
            for cell in report["cells"]
            if (cell["fault"], cell["side"]) == case and "skipped" not in cell
        ]
        failed = [(cell, name) for cell, name in cells if cell["raised"] != "nothing"]
        alike = _grouped(((cell["raised"], judgement(cell)), (cell, name)) for cell, name in failed)
        for (raised, judged), group in alike.items():
            polls = [cell["poll"] for cell, _ in group]
            rows.append((*case, "``%s``" % raised, _bits(polls), judged, _seen(group, cells)))
    return rows


def _grouped(pairs):
    found = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _bits(polls):
    """The events that were there each time, and in brackets those that were there at times."""
    sets = [set(poll.split()) for poll in polls]
    order = ("nothing", "IN", "RDHUP", "HUP", "ERR")
    always = [bit for bit in order if all(bit in one for one in sets)]
    at_times = [bit for bit in order if bit not in always and any(bit in one for one in sets)]
    return " ".join(always + (["(%s)" % " ".join(at_times)] if at_times else []))


def _seen(group, cells):
    """The kinds, those that have the same to add to them together."""
    possible = _by_kind(cells)
    kinds = _grouped((_which(seen, possible[kind]), kind) for kind, seen in _by_kind(group).items())
    if len(kinds.get("", ())) == len(possible):
        return "all"
    return "; ".join(", ".join(names) + rest for rest, names in kinds.items())


def _by_kind(cells):
    """Kind -> TLS version, empty without -> the labels of the interpreters, in their order."""
    kinds = _grouped((cell["kind"], (cell["tls"] or "", name)) for cell, name in cells)
    by_version = operator.itemgetter(0)
    return {kind: _grouped(sorted(seen, key=by_version)) for kind, seen in kinds.items()}


def _which(seen, possible):
    """Nothing where it is all of them; else which TLS versions and which interpreters."""
    if seen == possible:
        return ""
    parts = []
    for names, versions in _grouped(
        (() if names == possible[version] else tuple(names), version)
        for version, names in seen.items()
    ).items():
        words = versions if len(versions) < len(possible) else []
        parts.append(" ".join([*words, *(["on"] if words and names else []), *names]))
    return " (%s)" % ", ".join(parts)


def _in_order(name):
    return tuple(int(part.rstrip("t")) for part in name.replace("+", ".").split("."))


def as_rst(reports):
    """The interpreters, how many cells are right, and the table."""
    reports = sorted(reports, key=lambda report: _in_order(label(report)))
    lines = ["* ``%s``: %s" % (label(report), about(report)) for report in reports]
    lines += ["", "Right in %d of %d cells in which something failed." % score(reports)]
    lines += ["", ".. list-table::", "   :header-rows: 1", ""]
    before = ("", "")
    for row in [HEADER, *rows_of(reports)]:
        fault, side, *others = row
        shown = ("", "") if row[:2] == before else (fault if fault != before[0] else "", side)
        before = row[:2]
        first, *rest = (*shown, *others)
        lines += ["   * - %s" % first, *("     - %s" % cell for cell in rest)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def score(reports):
    """How many cells are right, of those in which something failed."""
    cells = [cell for report in reports for cell in report["cells"]]
    failed = [cell for cell in cells if cell.get("raised", "nothing") != "nothing"]
    return sum(not is_wrong(cell) for cell in failed), len(failed)


def about(report):
    """One line: the interpreter and the libraries."""
    made = report["made_with"]
    libraries = ", ".join("%s %s" % pair for pair in made["libraries"].items())
    return "%s, OpenSSL %s, %s; %s" % (made["python"], made["openssl"], made["kernel"], libraries)
