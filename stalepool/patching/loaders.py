"""Loaders that are watched: a module is loaded as without us, and a function is told of it."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, Callable, List, Optional

    #: is handed a module's name and a function that loads it; returns the module
    Watch = Callable[[str, Callable[[], Any]], Any]


#: asks a finder that has only ``find_module``, as old agents have; until Python 3.11
_ask_legacy: Any = getattr(sys.modules["_frozen_importlib"], "_find_spec_legacy", lambda *_: None)


def find(
    finders: List[Any], watch: Watch, fullname: str, path: Any, target: Any
) -> Optional[ModuleSpec]:
    """Ask finders as the import system does; have ``watch`` load the module of the first spec."""
    for finder in finders:
        if hasattr(finder, "find_spec"):
            spec: Any = finder.find_spec(fullname, path, target)
        else:
            spec = _ask_legacy(finder, fullname, path)
        if spec is not None:
            if spec.loader is not None:  # a namespace package has none
                spec.loader = _Loader(spec, watch)
            return spec  # type: ignore[no-any-return]
    return None


class _Loader:
    """Stands for the loader of a spec until the load begins; then the loader has its place."""

    def __init__(self, spec: ModuleSpec, watch: Watch) -> None:
        self._spec, self._watch = spec, watch
        self._loader: Any = spec.loader

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._loader, name)
        # PEP 451; zipimport's loader was an older one until Python 3.9
        loads = "exec_module" if hasattr(self._loader, "exec_module") else "load_module"
        return found if name != loads else lambda given: self._load(found, given)

    def __reduce_ex__(self, protocol: Any) -> Any:  # a copied or pickled spec has the loader
        return self._loader.__reduce_ex__(protocol)

    @property  # type: ignore[misc]  # typeshed lets it be assigned as well
    def __class__(self) -> Any:
        return type(self._loader)  # for isinstance(spec.loader, SourceFileLoader)

    def _load(self, load: Any, given: Any) -> Any:
        """Load a module: ``exec_module`` is given it, ``load_module`` its name, and returns it."""
        self._spec.loader = self._loader
        if getattr(given, "__loader__", None) is self:
            given.__loader__ = self._loader
        return self._watch(self._spec.name, lambda: load(given) or given)
