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
        has_exec = hasattr(spec.loader, "exec_module")
        loader: Any = (_ExecLoader if has_exec else _OldLoader)(spec, before, after)
        spec.loader = loader


class _Loader:
    def __init__(self, spec: ModuleSpec, before: Any, after: Any) -> None:
        self._spec = spec
        self._loader: Any = spec.loader
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    @property  # type: ignore[misc]  # typeshed lets it be assigned as well
    def __class__(self) -> Any:
        return type(self._loader)  # for isinstance(spec.loader, SourceLoader)


class _ExecLoader(_Loader):
    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        module: Optional[ModuleType] = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        name, loaded = self._spec.name, None
        self._before(name)
        try:
            self._loader.exec_module(module)
            loaded = module
        finally:
            self._after(name, loaded)


class _OldLoader(_Loader):
    """For loaders from before PEP 451; zipimport's was one until Python 3.9."""

    def load_module(self, fullname: str) -> ModuleType:
        self._spec.loader = self._loader
        loaded: Optional[ModuleType] = None
        self._before(fullname)
        try:
            loaded = self._loader.load_module(fullname)
        finally:
            self._after(fullname, loaded)
        return loaded
