"""A client that imports what a test says in the order that it says, in a process of its own."""

from __future__ import annotations

import textwrap
from typing import Any, Callable

import pytest

from service import PRELUDE


@pytest.fixture
def run_order(run_python: Callable[..., Any], port: int) -> Callable[..., Any]:
    def run(script: str, *args: object, **options: Any) -> Any:
        return run_python(PRELUDE + textwrap.dedent(script), port, *args, **options)

    return run
