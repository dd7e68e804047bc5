"""Costs of ``import stalepool`` to every Python process that never makes an HTTP request."""

import pytest

from conftest import REPOSITORY, child

DEAR = """
    wrapt ssl socket threading logging asyncio urllib3 eventlet gevent requests http typing enum
    dataclasses importlib.util inspect contextlib functools re json difflib argparse
"""
#: in a bare interpreter, which has its ``site`` loaded
LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import stalepool; dir(stalepool); stalepool.__version__
print(*set(sys.modules) - before)
"""


@pytest.mark.parametrize(
    "variables",
    [{}, {"STALEPOOL_MODE": "audit", "STALEPOOL_KEEPALIVE_COUNT": "4"}, {"STALEPOOL_ENABLED": "0"}],
    ids=["no variables", "settings", "kill switch"],
)
def test_import_loads_next_to_nothing(variables):
    added = child("-I", "-c", LOOK, REPOSITORY, env=variables, check=True).stdout.split()
    assert "stalepool.bootstrap" in added
    assert len(added) <= 10, sorted(added)
    assert not set(added) & set(DEAR.split())
