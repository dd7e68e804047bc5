"""Lanes of the suite: what runs by itself, with ``--full``, and with ``--slow``.

The ordinary lane holds every rule once. ``--full`` adds:

* tests marked ``full``: a second road to a rule, or a real environment that takes long to make;
* of a test marked ``each_value``, every combination of its parametrisations. The ordinary lane
  runs so many that each row of each ``parametrize`` is among them, or each value that the
  function ``each_value(by=...)`` makes of a case;
* what stock makes of a fault: cases with the id ``stock``, and tests whose name begins with
  ``test_stock_``. They test urllib3, and show that a fault is one.

``--slow`` adds tests marked ``slow``: the soak, and what waits for most of a minute.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

_eventlet = find_spec("eventlet")
_has_asyncio_hub = _eventlet and (Path(str(_eventlet.origin)).parent / "hubs/asyncio.py").exists()
_no_asyncio_hub = pytest.mark.skipif(not _has_asyncio_hub, reason="no eventlet, or before 0.36")
#: for ``parametrize``: what chooses eventlet's hub, the platform's own and asyncio's
HUBS = [
    pytest.param({}, id="own hub"),
    pytest.param(
        {"EVENTLET_HUB": "asyncio"}, id="asyncio", marks=[pytest.mark.full, _no_asyncio_hub]
    ),
]


def first(count, values):
    """Mark as ``full`` the values of a ``parametrize`` that come after so many."""
    return [
        value
        if number < count
        else pytest.param(*(value if type(value) is tuple else [value]), marks=pytest.mark.full)
        for number, value in enumerate(values)
    ]


def choose(config, items):
    """Take out of the collected tests those that do not run in this lane."""
    is_full, is_slow = config.getoption("--full"), config.getoption("--slow")
    chosen = [item for item in items if is_slow or not item.get_closest_marker("slow")]
    if not is_full:
        chosen = list(_each_value([item for item in chosen if not _is_full(item)]))
    config.hook.pytest_deselected(items=list(set(items) - set(chosen)))
    items[:] = chosen


def _is_full(item):
    call = getattr(item, "callspec", None)
    is_stock = call is not None and "stock" in call.id.split("-")
    is_stock |= item.name.startswith("test_stock_")
    return is_stock or item.get_closest_marker("full") is not None


def _each_value(items):
    """Leave out combinations that bring no row that an earlier one of the same test has not."""
    brought = {}
    for item in items:
        if item.get_closest_marker("each_value"):
            before = brought.setdefault((item.parent, getattr(item, "originalname", "")), set())
            rows = _rows(item)
            if rows <= before:
                continue
            before |= rows
        yield item


def _rows(item):
    """What ``by`` makes of a case; or its arguments of each ``parametrize``, by identity."""
    params = item.callspec.params
    by = item.get_closest_marker("each_value").kwargs.get("by")
    if by is not None:
        return set(by(**params))
    found = set()
    for mark in item.iter_markers("parametrize"):
        given = mark.args[0]
        names = given.split(",") if isinstance(given, str) else given
        found.add(tuple((name.strip(), id(params[name.strip()])) for name in names))
    return found
