"""All kinds of one interpreter, each in a process of its own, as one report of plain data."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import ssl
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Dict, List

from .faults import KINDS

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
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
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


def made_with() -> Dict[str, Any]:
    """Versions of all that has a say in what is raised."""
    libraries = {}
    for name in ("urllib3", "eventlet", "gevent", "pyOpenSSL"):
        with contextlib.suppress(PackageNotFoundError):
            libraries[name] = version(name)
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


def is_wrong(cell: Dict[str, Any]) -> bool:
    """The judgement is not what is right; a cell in which nothing failed has none."""
    return (cell.get("judged"), cell.get("begun")) != (cell.get("right"), cell.get("begun_right"))


def label(report: Report) -> str:
    """Short name of an interpreter: ``3.13+3.5`` is Python 3.13 with OpenSSL 3.5."""
    python, openssl = report["made_with"]["python"].split()[1], report["made_with"]["openssl"]
    minor = [".".join(version.split(".")[:2]) for version in (python, openssl)]
    return ("t+" if python.endswith("t") else "+").join(minor)
