"""How a child of the demo begins: ``python start.py INIT MODULE ARGS``.

``python -m`` would put the working directory first on ``sys.path``: a ``queue.py`` that lies in it,
and whoever laid it there, would be in every child. Here ``sys.path`` gets nothing. The package is
loaded from its own ``__init__.py``, so that the children run what the demo itself is a part of.
"""

from __future__ import annotations

import os
import sys


def take_off_what_nobody_asked_for() -> None:
    """Take this file's own directory, and the working directory, off ``sys.path``."""
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]


def load_package(name: str, init: str) -> None:
    """Import a package from this file, unless a sitecustomize has imported it before."""
    if name in sys.modules:
        return
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, init)
    assert spec is not None and spec.loader is not None
    package = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(package)


def main() -> None:
    """Become the module, which sees its own arguments alone."""
    init, module = sys.argv[1:3]
    del sys.argv[1:3]
    take_off_what_nobody_asked_for()
    load_package("stalepool", init)
    if module == "stalepool.cli.demo.network":  # the one that makes faults
        beside = os.path.dirname(os.path.dirname(init))
        load_package("stalepool_testing", os.path.join(beside, "stalepool_testing", "__init__.py"))
    from runpy import run_module

    run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
