"""All kinds of one interpreter, each in a process of its own, as one report of plain data."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import ssl
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Dict, List

from .kinds import KINDS

#: the folder from which ``tests.failures`` and ``stalepool`` are imported
ROOT = Path(__file__).resolve().parent.parent.parent

Report = Dict[str, Any]


def present() -> List[str]:
    """The kinds whose libraries this interpreter has."""
    return [
        name
        for name, kind in KINDS.items()
        if all(importlib.util.find_spec(needed) is not None for needed in kind.needs)
    ]


def run() -> Report:
    """Every cell of the kinds that are present, and what they were made with.

    :raises RuntimeError: a child failed, with what it said.
    """
    # the cells are about the socket: urllib3 stays as it is
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    environ = dict(os.environ, PYTHONPATH=path, STALEPOOL_ENABLED="0")
    children = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tests.failures.cells", name],
            cwd=str(ROOT),
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in present()
    }
    cells: List[Dict[str, Any]] = []
    failed: List[str] = []
    for name, child in children.items():  # all of them are waited for, whatever one says
        said, complaint = child.communicate()
        if child.returncode:
            failed.append("%s: %s" % (name, complaint.decode(errors="replace")))
        else:
            cells += json.loads(said)
    if failed:
        raise RuntimeError("\n".join(failed))
    return {"made_with": made_with(), "cells": cells}


def made_with() -> Dict[str, Any]:
    """Versions of all that has a say in what is raised."""
    python = platform.python_version() + getattr(sys, "abiflags", "")
    return {
        "python": "%s %s" % (platform.python_implementation(), python),
        "openssl": ssl.OPENSSL_VERSION.split()[1],
        "kernel": "%s %s" % (platform.system(), platform.release().split("-")[0]),
        "libraries": _libraries(),
    }


def _libraries() -> Dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("urllib3", "eventlet", "gevent", "pyOpenSSL"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    if "pyOpenSSL" in found:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography's opinion of an old Python
            from OpenSSL import SSL
        # it has an OpenSSL of its own
        found["pyOpenSSL's OpenSSL"] = SSL.SSLeay_version(0).decode().split()[1]
    return found


def is_wrong(cell: Dict[str, Any]) -> bool:
    """The judgement is not what is right; a cell in which nothing failed has none."""
    return (cell.get("judged"), cell.get("begun")) != (cell.get("right"), cell.get("begun_right"))


def label(report: Report) -> str:
    """Short name of an interpreter: ``3.13+3.5`` is Python 3.13 with OpenSSL 3.5."""
    made = report["made_with"]
    python = made["python"].split()[1]
    threads = "t" if python.endswith("t") else ""
    return "%s%s+%s" % (_minor(python), threads, _minor(made["openssl"]))


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
