"""Costs of ``import stalepool`` to every Python process that never makes an HTTP request."""

from __future__ import annotations

from typing import Any, Callable, Set

import pytest

from conftest import REPOSITORY, child

MOST_MODULES = 10

DEAR = """
    wrapt ssl socket threading logging asyncio urllib3 eventlet gevent requests http typing enum
    dataclasses importlib.util inspect contextlib functools re json difflib argparse
"""


def modules_added_by(line: str, **variables: str) -> Set[str]:
    """The modules a line loads in a bare interpreter, which has its ``site`` loaded."""
    script = (
        "import sys; sys.path.insert(0, %r); before = set(sys.modules); %s; "
        "print(*sorted(set(sys.modules) - before))"
    ) % (str(REPOSITORY), line)
    done = child("-I", "-c", script, env=variables)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "variables",
    [{}, {"STALEPOOL_MODE": "audit", "STALEPOOL_KEEPALIVE_COUNT": "4"}, {"STALEPOOL_ENABLED": "0"}],
    ids=["no variables", "settings", "kill switch"],
)
def test_import_loads_next_to_nothing(variables: dict[str, str]) -> None:
    line = "import stalepool; dir(stalepool); stalepool.__version__"
    added = modules_added_by(line, **variables)
    assert "stalepool.bootstrap" in added
    assert len(added) <= MOST_MODULES, sorted(added)
    assert not added & set(DEAR.split())


def test_the_kill_switch_keeps_everything_out(run_python: Callable[..., Any]) -> None:
    """Whatever else is wrong."""
    run_python(
        """
        import sys
        import stalepool, urllib3
        finders = {type(finder).__module__.partition(".")[0] for finder in sys.meta_path}
        assert not finders & {"stalepool", "wrapt"}, finders
        assert "wrapt" not in sys.modules
        assert not stalepool.is_installed()
        """,
        env={"STALEPOOL_ENABLED": "off", "STALEPOOL_MODE": "junk", "STALEPOOL_X": ""},
    )
