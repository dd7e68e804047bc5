"""Costs of ``import stalepool`` to every Python process that never makes an HTTP request."""

import pytest

from conftest import REPOSITORY, child

DEAR = """
    wrapt ssl socket threading logging asyncio urllib3 eventlet gevent requests http typing enum
    dataclasses importlib.util inspect contextlib functools re json difflib argparse
"""
LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
%s
print(*set(sys.modules) - before)
"""


def modules_added_by(line, **variables):
    """The modules a line loads in a bare interpreter, which has its ``site`` loaded."""
    return set(child("-I", "-c", LOOK % line, REPOSITORY, env=variables, check=True).stdout.split())


@pytest.mark.parametrize(
    "variables",
    [{}, {"STALEPOOL_MODE": "audit", "STALEPOOL_KEEPALIVE_COUNT": "4"}, {"STALEPOOL_ENABLED": "0"}],
    ids=["no variables", "settings", "kill switch"],
)
def test_import_loads_next_to_nothing(variables):
    line = "import stalepool; dir(stalepool); stalepool.__version__"
    added = modules_added_by(line, **variables)
    assert "stalepool.bootstrap" in added
    assert len(added) <= 10, sorted(added)
    assert not added & set(DEAR.split())


def test_the_kill_switch_keeps_everything_out():
    """Whatever else is wrong: there is no finder, and nothing to patch with."""
    ours = "[f for f in sys.meta_path if type(f).__module__.startswith('stalepool.')]"
    added = modules_added_by(
        "import stalepool, urllib3; assert not " + ours,
        **{"STALEPOOL_ENABLED": "off", "STALEPOOL_MODE": "junk", "STALEPOOL_X": ""},
    )
    assert "urllib3.connectionpool" in added
    assert not added & {"wrapt", "stalepool.fallback", "stalepool.patching.patches"}
