"""The import hook: it patches every copy of urllib3 as soon as the copy is loaded, and not before.

None of ours is imported while a package is half loaded, or a finder is asked: docs/design.rst.

A copy is patched when its ``__init__`` has run; a module of it that is loaded later is patched once
it is loaded. If the package was half loaded when the hook was registered, its connectionpool is
patched when connectionpool, or poolmanager, is loaded. No exception of ours breaks an import.
"""

from __future__ import annotations

import sys

try:  # never lazy in such a block (PEP 810): the finder would be asked for its own imports
    from stalepool.patching import copies, loaders
finally:
    pass

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Callable, Dict, List, Optional

    from stalepool.settings import Settings


class _Finder:
    """First on ``sys.meta_path``; finds what the other finders find, and watches its load.

    It is off (not registered), on, refused (registered, so as to say in the log why nothing is
    patched), or failed (on, but the last attempt to patch was in vain).
    """

    def __init__(self) -> None:
        self.is_registered = False
        self.settings: Optional[Settings] = None  # the defaults
        self.off_because: Optional[str] = "it was not switched on"  # or refused; None: on
        self.being_loaded: List[str] = []  # names of modules
        self.has_failed = False
        self.patches: Any = None  # our module, once there is a urllib3

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> Optional[ModuleSpec]:
        if copies.place_of(fullname) is None:
            return None  # all other imports: it costs them 0.1 us
        finders = list(sys.meta_path)
        if self not in finders:  # uninstalled meanwhile
            return None
        behind = finders[finders.index(self) + 1 :]
        return loaders.find(behind, self.load, fullname, path, target)

    def load(self, fullname: str, load: Callable[[], Any]) -> Any:
        """Load a module, and patch the modules that are complete after it."""
        package, part = copies.place_of(fullname) or ("", "")
        self.being_loaded.append(fullname)
        try:
            module = load()
        finally:
            self.being_loaded.remove(fullname)
        if package not in self.being_loaded:
            whole = sys.modules.get(package) if part else module
            is_whole = part in ("", copies.AFTER_POOL)
            self.patch(copies.parts_of(whole) if is_whole else [module])
        return module

    def patch(self, modules: List[ModuleType]) -> None:
        """Put the settings in force, and patch these modules if they are not patched yet."""
        if not self.is_registered or not (modules or self.patches):
            return
        try:
            from stalepool.sockets import unpatched

            with unpatched.in_sight():
                from stalepool import fallback

                if self.off_because is None:
                    patch = fallback.guarded("hook_failed", False)(self._load_and_patch)
                    self.has_failed = not patch(modules)
                fallback.guarded("status_failed")(self._show)(modules)
        except Exception as error:  # the guard itself cannot be imported, or called
            foreign = sys.modules.get("stalepool.foreign")
            if foreign is not None and foreign.is_foreign(error):
                raise
            self.has_failed = True

    def _load_and_patch(self, modules: List[ModuleType]) -> bool:
        from stalepool import runtime
        from stalepool.patching import patches

        self.patches = patches
        runtime.put_in_force(registered_settings())
        for module in modules:
            patches.apply(module)
        return True

    def _show(self, modules: List[ModuleType]) -> None:
        """Show this process to ``stalepool status``; if the shim is off, say so in the log."""
        from stalepool import status

        status.describe_hook = describe
        if self.off_because is None:  # else stalepool status sees it in the environment
            status.show()
        if self.why_off() is not None:
            for module in modules:
                _at_first_connection(module, status.say_that_it_is_off)

    def why_off(self) -> Optional[str]:
        """Return why nothing is or will be patched; None if something is or will be."""
        is_patched = self.patches is not None and self.patches.patched()  # in another copy
        if self.off_because is not None or not self.has_failed or is_patched:
            return self.off_because
        from stalepool import fallback

        return "the import hook failed: %s" % fallback.first_details.get("hook_failed")

    def retire(self) -> List[str]:
        """Undo everything; return what could not be undone."""
        patches, self.patches = self.patches, None
        self.is_registered = self.has_failed = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        return [] if patches is None else patches.remove()


_finder = _Finder()


def register(settings: Optional[Settings] = None, refused: Optional[str] = None) -> None:
    """Have all urllib3 of this process patched, present and future; a later call changes settings.

    :param settings: None for the defaults.
    :param refused: why nothing may be patched; it is said in the log at the first connection.
    """
    finders: List[Any] = list(sys.meta_path)
    for finder in finders:
        if type(finder).__module__ == __name__ and finder is not _finder:
            finder.retire()  # of a stalepool that was deleted from sys.modules since
    if _finder not in finders:
        sys.meta_path.insert(0, _finder)
    _finder.is_registered, _finder.settings, _finder.off_because = True, settings, refused
    _finder.patch(copies.present())


def unregister(off_because: str = "stalepool.uninstall() was called") -> List[str]:
    """Stop watching imports, and put urllib3 back as it was: :func:`stalepool.uninstall`."""
    _finder.off_because = off_because
    has_patched = _finder.patches is not None
    left = _finder.retire()
    if has_patched:
        from stalepool import status

        status.show()
    return left


def describe() -> Dict[str, Any]:
    """Return the part of a snapshot that is about patching; plain data."""
    settings, patches, why_off = registered_settings(), _finder.patches, _finder.why_off()
    return {
        "installed": why_off is None,
        "off_because": why_off,
        "settings": {} if settings is None else settings.explained(),
        "patched": [] if patches is None else patches.patched(),
        "unpatched": [] if patches is None else patches.unpatched(),
    }


def registered_settings() -> Optional[Settings]:
    """Return what :func:`register` was given last; None where nothing is registered."""
    from stalepool.settings import Settings

    return (_finder.settings or Settings()) if _finder.is_registered else None


def _at_first_connection(module: ModuleType, say: Callable[[], None]) -> None:
    """Have a function called when a pool of this module first makes a connection.

    Not earlier, because services import urllib3 before they configure their logging. Nothing is
    done if ``_new_conn`` is no plain function of the pool's class, as when somebody has patched it.
    """
    import functools
    from types import FunctionType

    pool: Any = vars(module).get("HTTPConnectionPool")
    stock = vars(pool).get("_new_conn") if isinstance(pool, type) else None
    if not isinstance(stock, FunctionType) or hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def _new_conn(*args: Any, **kwargs: Any) -> Any:
        if vars(pool).get("_new_conn") is _new_conn:
            pool._new_conn = stock
            say()
        return stock(*args, **kwargs)

    pool._new_conn = _new_conn
