"""When the seams are applied: as soon as there is a urllib3, on every copy, and not before.

Nothing but ``sys`` is imported here until then; wrapt (23-90 ms) and the rest of stalepool are
loaded when urllib3 is looked up for the first time, so a process that makes no HTTP request never
pays, and ``eventlet.monkey_patch()`` may still come.

wrapt's post-import hook serves the first load of ``urllib3.connectionpool``. It fires once a
process, so a finder of our own wraps the loader of every later load: after a deletion from
``sys.modules``, on ``importlib.reload``, for the second copy of ``eventlet.import_patched``. A copy
that was half built when we came is complete by the time ``urllib3.poolmanager`` is looked up.

No exception leaves this module for an import to trip over: with wrapt, a hook that raises makes
the import itself fail.
"""

from __future__ import annotations

import sys

_POOL = "urllib3.connectionpool"

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, List, Optional

    from stalepool.settings import Settings


class _Finder:
    """First on ``sys.meta_path``; finds nothing by itself."""

    def __init__(self, settings: Optional[Settings]) -> None:
        self.settings = settings  # None: the defaults
        self.wrapt_is_told = False
        self.wrapt_has_fired = False

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> Any:
        try:
            if fullname == "urllib3":
                self.tell_wrapt()
            elif fullname == _POOL and self.wrapt_has_fired:
                return self.spec_of_later_load(fullname, path, target)
            elif fullname == "urllib3.poolmanager":
                self.apply(sys.modules.get(_POOL))
        except Exception as error:
            _stand_aside(error)
        return None

    def tell_wrapt(self) -> None:
        if self.wrapt_is_told:
            return
        self.wrapt_is_told = True
        import wrapt

        wrapt.register_post_import_hook(self.on_first_load, _POOL)

    def on_first_load(self, module: ModuleType) -> None:
        self.wrapt_has_fired = True
        self.apply(module)

    def apply(self, module: Optional[ModuleType]) -> None:
        """Put the settings in force and wrap the seams of one copy; a half-built one must wait."""
        if module is None or self not in sys.meta_path or _is_half_built(module):
            return
        try:
            from stalepool import runtime, seams, settings

            runtime.start(self.settings or settings.Settings())
            seams.apply(module)
        except Exception as error:
            _stand_aside(error)

    def spec_of_later_load(self, fullname: str, path: Any, target: Any) -> Any:
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec = None if find is None else find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _wrap_loader(spec, self)
                return spec
        return None


class _Loader:
    """Loads as the real one does, and applies the seams to what it loaded.

    Steps aside in the spec before it loads, so the module is left with its real loader.
    """

    def __init__(self, spec: Any, finder: _Finder) -> None:
        self._spec = spec
        self._loader: Any = spec.loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    @property  # type: ignore[misc]  # object's own can be written
    def __class__(self) -> Any:
        return type(self._loader)  # for who asks isinstance(spec.loader, SourceLoader)


class _ExecLoader(_Loader):
    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._finder.apply(module)


class _OldLoader(_Loader):
    """For loaders from before PEP 451; zipimport's was one until Python 3.9."""

    def load_module(self, fullname: str) -> Any:
        self._spec.loader = self._loader
        module = self._loader.load_module(fullname)
        self._finder.apply(module)
        return module


def _wrap_loader(spec: Any, finder: _Finder) -> Any:
    has_exec = hasattr(spec.loader, "exec_module")
    return (_ExecLoader if has_exec else _OldLoader)(spec, finder)


def register(settings: Optional[Settings] = None) -> None:
    """See to it that every urllib3 of this process gets the seams, present and future copies alike.

    Registering again only changes the settings.

    :param settings: None for the defaults.
    """
    finder = _present()
    if finder is None:
        finder = _Finder(settings)
        sys.meta_path.insert(0, finder)
    finder.settings = settings
    if "urllib3" in sys.modules:
        finder.tell_wrapt()
    for module in _present_copies():
        finder.apply(module)


def unregister() -> bool:
    """Stop watching imports. Returns whether we were."""
    finder = _present()
    if finder is not None:
        sys.meta_path.remove(finder)
    return finder is not None


def is_registered() -> bool:
    return _present() is not None


def _present() -> Optional[_Finder]:
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            return finder
    return None


def _present_copies() -> List[ModuleType]:
    """The copies there are: imported, kept by import_patched, or hanging off an old package."""
    packages = [sys.modules.get("urllib3"), sys.modules.get("__patched_module_urllib3")]
    found = [sys.modules.get(_POOL), sys.modules.get("__patched_module_" + _POOL)]
    found += [getattr(package, "connectionpool", None) for package in packages]
    return [module for module in found if module is not None]


def _is_half_built(module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    return bool(getattr(spec, "_initializing", False)) and not hasattr(
        module, "connection_from_url"
    )


def _stand_aside(error: Exception) -> None:
    try:
        from stalepool import aside

        aside.stand_aside("hook_failed", repr(error))
    except Exception:  # nothing is left to say it with
        pass
