"""Switches stalepool on in a process that has this directory on PYTHONPATH.

Every Python that inherits the variable runs this, so the syntax is Python 2.7's. If stalepool is
missing, or the Python is older than 3.8, it says and does nothing. Then it runs the sitecustomize
that it hides from the interpreter.
"""

import os
import sys

_FINISHED = None  # is among the places in the set once the interpreter has started


def _start_stalepool():
    if sys.version_info < (3, 8):
        return
    try:
        import stalepool  # noqa: F401
    except Exception:  # not installed for this Python, or broken: the process goes on
        pass


def _run_the_hidden_one():
    # one set for all copies of this file in a process: another tool's sitecustomize may run the
    # next one, too, and then the two would run each other for ever
    done = sys.__dict__.setdefault("_stalepool_sitecustomize_done", set())
    if _FINISHED in done:  # somebody runs this file again: the hidden one has been run
        return
    is_first = not done
    here = _place(os.path.dirname(__file__))
    done.add(here)
    try:
        _run_the_next_one(done, here)
    finally:
        if is_first:
            done.add(_FINISHED)


def _run_the_next_one(done, here):
    places = [_place(entry) for entry in sys.path]
    hidden = places[places.index(here) + 1 :] if here in places else []
    for place in hidden:
        load = None if place in done else _loader_of_the_one_in(place)
        if load is not None:
            done.add(place)
            _run(load)
            return


def _place(entry):
    try:
        return os.path.realpath(entry)
    except OSError:  # it is relative, and the working directory is gone
        return entry


def _loader_of_the_one_in(place):
    if sys.version_info < (3, 4):
        import imp

        try:
            found = imp.find_module("sitecustomize", [place])
        except ImportError:
            return None
        return lambda: imp.load_module("sitecustomize", *found)

    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", [place])
    if spec is None or spec.loader is None:
        return None

    def load():
        module = sys.modules["sitecustomize"] = module_from_spec(spec)
        spec.loader.exec_module(module)

    return load


def _run(load):
    ours = sys.modules.pop("sitecustomize", None)
    try:
        load()
    except BaseException:  # site.py reports it, as it would without us
        if ours is not None:
            sys.modules["sitecustomize"] = ours
        raise


_start_stalepool()
_run_the_hidden_one()
