"""Watched loaders: nothing can tell them from the originals, before or after the load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable

import urllib3


def test_a_urllib3_in_a_zip_file(tmp_path: Path, run_order: Callable[..., Any]) -> None:
    package = Path(urllib3.__file__).parent
    zipped = shutil.make_archive(
        str(tmp_path / "urllib3"), "zip", str(package.parent), package.name
    )
    run_order(
        """
        import inspect
        sys.path.insert(0, sys.argv[2])
        import stalepool, urllib3
        copies = [urllib3.connectionpool]
        forget("urllib3")
        import urllib3
        copies.append(urllib3.connectionpool)
        del sys.modules["urllib3.connectionpool"]
        import urllib3.connectionpool
        copies.append(urllib3.connectionpool)
        assert len(set(copies)) == 3
        for module in copies:
            assert module.__file__.startswith(sys.argv[2]), module
            assert type(module.__loader__).__name__ == "zipimporter", module.__loader__
            assert "class HTTPConnectionPool" in inspect.getsource(module)
        check(*copies)
        """,
        zipped,
    )


def test_nobody_sees_a_trace_of_the_hook(run_order: Callable[..., Any]) -> None:
    run_order(
        """
        import copy, importlib.util, inspect, pathlib, pickle
        from importlib.machinery import SourceFileLoader
        import stalepool

        NAMES = "urllib3", "urllib3.connectionpool", "urllib3.poolmanager"

        def look_at_spec(name):
            spec = importlib.util.find_spec(name)
            assert isinstance(spec.loader, SourceFileLoader), spec
            assert spec.loader.get_filename(name) == spec.origin
            assert "import" in spec.loader.get_source(name)
            assert spec.loader.is_package(name) == bool(spec.submodule_search_locations)
            for same in copy.deepcopy(spec), pickle.loads(pickle.dumps(spec)):
                assert type(same.loader) is SourceFileLoader

        def look_at_module(name):
            module = sys.modules[name]
            for loader in module.__loader__, module.__spec__.loader:
                assert type(loader) is SourceFileLoader, loader
            assert module.__file__ == module.__spec__.origin
            source = pathlib.Path(module.__file__).read_text(encoding="utf-8")
            assert inspect.getsource(module) == source

        look_at_spec("urllib3")
        for _ in range(3):
            import urllib3
            for name in NAMES:
                look_at_module(name)
            for name in NAMES[1:]:
                del sys.modules[name]
                look_at_spec(name)
            check = urllib3.connectionpool.is_connection_dropped
            assert "def is_connection_dropped(conn" in inspect.getsource(check)
            assert check.__name__ == "is_connection_dropped"
            assert check.__module__ == "urllib3.util.connection"
            forget("urllib3")
        """
    )
