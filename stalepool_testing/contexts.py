"""The fixtures of ``pytest_stalepool`` as context managers, for unittest and others."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

from stalepool_testing.connect_proxy import ConnectProxy
from stalepool_testing.script import ScriptLike
from stalepool_testing.server import FaultServer


@contextlib.contextmanager
def fault_server(
    *script: ScriptLike, may_leave_steps: bool = False, **options: Any
) -> Iterator[FaultServer]:
    """A :class:`.FaultServer` for the block, of which every answer step has to be met by a request.

    :param may_leave_steps: True: steps may be left over.
    :param options: as for :class:`.FaultServer`.
    :raises AssertionError: steps are left over at the end of a block that has not failed.
    """
    with FaultServer(*script, **options) as server:
        yield server
        left = "" if may_leave_steps else server.steps_left()
        if left:
            raise AssertionError(left)


def proxy(**options: Any) -> ConnectProxy:
    """A :class:`.ConnectProxy`, which is a context manager; ``options`` are its own."""
    return ConnectProxy(**options)
