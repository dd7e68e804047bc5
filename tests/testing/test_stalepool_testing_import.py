"""Importing the tools for tests leaves the process as it is."""

from __future__ import annotations

import ast
from typing import Any, Callable

from conftest import REPOSITORY


def test_importing_them_does_not_import_stalepool(run_python: Callable[..., Any]) -> None:
    """The plugin imports nothing but pytest. What imports stalepool later has it on."""
    run_python(
        """
        import sys
        import contextlib, typing, pytest
        before = set(sys.modules)
        import pytest_stalepool
        assert set(sys.modules) - before == {"pytest_stalepool"}, set(sys.modules) - before
        from stalepool_testing import *
        import urllib3
        assert "stalepool" not in sys.modules
        assert not any("stalepool" in type(finder).__module__ for finder in sys.meta_path)
        import stalepool
        assert stalepool.is_installed()
        """
    )


def test_only_the_shim_imports_stalepool() -> None:
    found = {
        path.stem
        for path in (REPOSITORY / "stalepool_testing").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.partition(".")[0] == "stalepool"
    }
    assert found == {"shim"}
