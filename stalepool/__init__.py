"""Keeps services from talking into dead pooled connections.

``import stalepool`` at start-up suffices: every urllib3 pool of the process then checks a
connection, without yielding, before it is reused, and enables TCP keepalive on it. The names are
loaded when they are first used. PYTEST_DONT_REWRITE: this may be imported before pytest.
"""

from __future__ import annotations

from stalepool import bootstrap

__version__ = "0.1.0"

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from stalepool.control import install, is_installed, snapshot, uninstall
    from stalepool.settings import Settings, SettingsError
    from stalepool.sockets.verdict import Verdict

#: the public names that are not of control
_ELSEWHERE = {"Settings": "settings", "SettingsError": "settings", "Verdict": "sockets.verdict"}

__all__ = ["Settings", "SettingsError", "Verdict", "__version__"]
__all__ += ["install", "is_installed", "snapshot", "uninstall"]


def __getattr__(name: str) -> object:  # PEP 562: an import of everything at once would cost 20 ms
    if name not in __all__:
        raise AttributeError("module 'stalepool' has no attribute %r" % name)
    import importlib

    module = importlib.import_module("stalepool." + _ELSEWHERE.get(name, "control"))
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


bootstrap.start()
