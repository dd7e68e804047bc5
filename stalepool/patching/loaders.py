"""Call functions before and after a module is loaded, and leave no trace.

The loader in a module's spec is wrapped until the load begins. Afterwards the module and its spec
have the original loader. Imports nothing, since it is part of start-up.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Callable, Optional


def watch(
    spec: ModuleSpec,
    before: Callable[[str], None],
    after: Callable[[str, Optional[ModuleType]], None],
) -> None:
    """Have two functions called at each load from this spec, one before it and one after it.

    Both get the module's name; the second also the module, or None if its load failed. They may
    import, since the import system holds only the module's own lock then. They must not raise: the
    exception would look like the module's.
    """
    if spec.loader is not None:  # None: a namespace package
        loader: Any = _Loader(spec, before, after)
        spec.loader = loader


class _Loader:
    """All that the loader in the spec is, until the load begins."""

    def __init__(self, spec: ModuleSpec, before: Any, after: Any) -> None:
        self._spec = spec
        self._loader: Any = spec.loader
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._loader, name)
        # PEP 451; zipimport's loader was an older one until Python 3.9
        loads = "exec_module" if hasattr(self._loader, "exec_module") else "load_module"
        return found if name != loads else lambda given: self._load(found, given)

    @property  # type: ignore[misc]  # typeshed lets it be assigned as well
    def __class__(self) -> Any:
        return type(self._loader)  # for isinstance(spec.loader, SourceFileLoader)

    def _load(self, load: Any, given: Any) -> Any:
        """Load a module: ``exec_module`` is given it, ``load_module`` its name, and returns it."""
        self._spec.loader = self._loader
        if getattr(given, "__loader__", None) is self:
            given.__loader__ = self._loader
        name, loaded = self._spec.name, None
        self._before(name)
        try:
            loaded = load(given) or given
        finally:
            self._after(name, loaded)
        return loaded
