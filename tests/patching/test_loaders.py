"""Watched loaders: nothing can tell them from the originals, before or after the load."""

import shutil
from pathlib import Path

import urllib3


def test_a_urllib3_in_a_zip_file(tmp_path, run_order):
    package = Path(urllib3.__file__).parent
    zipped = shutil.make_archive(str(tmp_path / "it"), "zip", str(package.parent), package.name)
    run_order(
        """
        import inspect
        sys.path.insert(0, sys.argv[2])
        import stalepool
        copies = []
        for gone in "urllib3", "urllib3.connectionpool", "stays":
            import urllib3.connectionpool
            copies.append(sys.modules["urllib3.connectionpool"])
            forget(gone)
        assert len(set(copies)) == 3
        for module in copies:
            assert module.__file__.startswith(sys.argv[2]), module
            assert type(module.__loader__).__name__ == "zipimporter", module.__loader__
            assert "class HTTPConnectionPool" in inspect.getsource(module)
        check(*copies)
        """,
        zipped,
    )


def test_nobody_sees_a_trace_of_the_hook(run_order):
    run_order(
        """
        import copy, importlib.util, inspect, pathlib, pickle
        from importlib.machinery import SourceFileLoader
        import stalepool

        def look_at_spec(name):
            spec = importlib.util.find_spec(name)
            assert isinstance(spec.loader, SourceFileLoader), spec
            assert spec.loader.get_filename(name) == spec.origin
            assert spec.loader.is_package(name) == bool(spec.submodule_search_locations)
            for same in copy.deepcopy(spec), pickle.loads(pickle.dumps(spec)):
                assert type(same.loader) is SourceFileLoader

        look_at_spec("urllib3")
        for _ in range(2):
            import urllib3
            for name in "urllib3", "urllib3.connectionpool", "urllib3.poolmanager":
                module = sys.modules[name]
                for loader in module.__loader__, module.__spec__.loader:
                    assert type(loader) is SourceFileLoader, loader
                source = pathlib.Path(module.__file__).read_text(encoding="utf-8")
                assert inspect.getsource(module) == source
            del sys.modules["urllib3.connectionpool"]
            look_at_spec("urllib3.connectionpool")
            check = urllib3.connectionpool.is_connection_dropped
            assert "def is_connection_dropped(conn" in inspect.getsource(check)
            assert check.__name__ == "is_connection_dropped"
            assert check.__module__ == "urllib3.util.connection"
            forget("urllib3")
        """
    )
