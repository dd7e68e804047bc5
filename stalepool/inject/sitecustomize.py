"""Switches stalepool on in a process that has this directory on PYTHONPATH.

Every Python that inherits the variable runs this, other versions too: the syntax is Python 2.7's,
and where stalepool cannot be had, or the Python is older than 3.8, nothing is said or done. A
sitecustomize that this one hides from the interpreter is then run as it would have been.
"""

import os
import sys


def _start_stalepool():
    if sys.version_info < (3, 8):
        return
    try:
        import stalepool  # noqa: F401
    except Exception:  # not installed for this Python, or broken: the process goes on
        pass


def _run_the_hidden_one():
    here = os.path.dirname(os.path.abspath(__file__))
    path = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != here]
    ours = sys.modules.get(__name__)
    if sys.version_info >= (3, 4):
        from importlib.machinery import PathFinder
        from importlib.util import module_from_spec

        spec = PathFinder.find_spec("sitecustomize", path)
        if spec is None or spec.loader is None:
            return
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules["sitecustomize"] = ours
            raise  # site.py reports it, as it would without us
    else:
        import imp

        try:
            found = imp.find_module("sitecustomize", path)
        except ImportError:
            return
        del sys.modules["sitecustomize"]
        imp.load_module("sitecustomize", *found)


_start_stalepool()
_run_the_hidden_one()
