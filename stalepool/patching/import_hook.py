"""The moment of patching: as soon as a urllib3 has been loaded, for every copy, and not before.

Nothing of ours, nor wrapt (23-90 ms), is imported before. A process that makes no HTTP request
never pays, ``eventlet.monkey_patch()`` may still come, and two threads that import parts of urllib3
at the same time meet what they would meet without us: nothing is imported while a package is half
loaded, nor while a finder is asked (the interpreter holds its global import lock then).

A finder first on ``sys.meta_path`` watches every load of what :mod:`stalepool.patching.copies`
names: the first, a load after a deletion from ``sys.modules``, ``importlib.reload``, the copies
that ``eventlet.import_patched`` makes. A copy is patched when its ``__init__`` has run; a module
of it that is loaded later, after its own load. A package that was half loaded when we came is not
watched: its connectionpool is patched after its own load, or after poolmanager's.

wrapt's post-import hooks are not used. They fire before a package is whole, at once on a module
that is half built, and never on a second load.

No exception of ours leaves this module for an import to trip over.
"""

from __future__ import annotations

import sys

from stalepool.patching import copies, loaders
from stalepool.patching.copies import PACKAGE, SESSION

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Dict, List, Optional

    from stalepool.settings import Settings


class _Finder:
    """First on ``sys.meta_path``; finds what the others find, and watches it being loaded."""

    def __init__(self) -> None:
        self.settings: Optional[Settings] = None  # the defaults
        self.refused: Optional[str] = None  # why nothing is to be patched
        self.being_loaded: List[str] = []  # the packages whose __init__ runs now
        self.has_failed = False
        self.loaded: Any = None  # our modules runtime and patches, once there is a urllib3

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> Optional[ModuleSpec]:
        if PACKAGE not in fullname and fullname != SESSION:
            return None  # everybody else's imports pay 0.1 us
        if copies.place_of(fullname) is None:
            return None
        finders = list(sys.meta_path)
        if self not in finders:  # uninstalled meanwhile
            return None
        for finder in finders[finders.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec: Optional[ModuleSpec] = None if find is None else find(fullname, path, target)
            if spec is not None:
                loaders.watch(spec, self.before_load, self.after_load)
                return spec
        return None

    def before_load(self, fullname: str) -> None:
        place = copies.place_of(fullname)
        if place is not None and place[1] == "":
            self.being_loaded.append(place[0])

    def after_load(self, fullname: str, module: Optional[ModuleType]) -> None:
        """Patch what has become complete with this load; None: it failed."""
        package, part = copies.place_of(fullname) or ("", "")
        if part == "" and package in self.being_loaded:
            self.being_loaded.remove(package)
        if module is None or package in self.being_loaded:
            return
        if part == "":
            self.patch(copies.parts_of(module))
        elif part == copies.AFTER_POOL:
            found = copies.complete(copies.present())
            self.patch([m for m in found if m.__name__.startswith(package + ".")])
        else:
            self.patch([module])

    def patch(self, modules: List[ModuleType]) -> None:
        """Put the settings in force and patch these modules, which may be patched already."""
        if not modules or self is not _finder:
            return
        try:
            from stalepool.sockets import unpatched

            with unpatched.in_sight():
                from stalepool import fallback
        except ImportError:  # nothing is left to say it with
            self.has_failed = True
        else:
            if self.refused is None:
                patch = fallback.guarded("hook_failed", False)(self._load_and_patch)
                self.has_failed = not patch(modules)
            fallback.guarded("status_failed")(self._show)(modules)

    def _load_and_patch(self, modules: List[ModuleType]) -> bool:
        from stalepool.sockets import unpatched

        with unpatched.in_sight():
            from stalepool import runtime, settings
            from stalepool.patching import patches
        self.loaded = runtime, patches
        runtime.start(self.settings or settings.Settings())
        for module in modules:
            patches.apply(module)
        return True

    def _show(self, modules: List[ModuleType]) -> None:
        """Show this process to ``stalepool status``; where the shim is off, say so in the log."""
        from stalepool.sockets import unpatched

        with unpatched.in_sight():
            from stalepool import fallback, status
            from stalepool.patching import announce
        if self.refused is None:  # the environment tells stalepool status as much
            status.show(describe)
        say = fallback.guarded("status_failed")(self._say_that_it_is_off)
        if not self.is_at_work():
            for module in modules:
                announce.at_first_connection(module, say)

    def _say_that_it_is_off(self) -> None:
        """Log it at WARNING, unless it is on by now, or was taken out."""
        import logging

        from stalepool import fallback

        if self is _finder and not self.is_at_work():
            args = "stalepool is not active in this process: %s", self.why_off()
            fallback.log(logging.getLogger("stalepool.status"), logging.WARNING, *args)

    def why_off(self) -> Optional[str]:
        """Say why nothing is patched, or going to be; None where that is not so."""
        if self.is_at_work():
            return None
        if self.refused is not None or not self.has_failed:
            return self.refused or "wrapt cannot be imported"
        from stalepool import fallback

        return "the import hook failed: %s" % fallback.first_details.get("hook_failed")

    def is_at_work(self) -> bool:
        """False where nothing was patched, and nothing is going to be."""
        if self.refused is not None:
            return False
        if self.loaded is not None and self.loaded[1].patched():
            return True
        return not self.has_failed and _wrapt_is_there()

    def retire(self) -> List[str]:
        """Undo everything; returns what could not be undone."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self.loaded is None:
            return []
        runtime, patches = self.loaded
        runtime.stop()
        left: List[str] = patches.remove()
        return left


_finder: Optional[_Finder] = None

#: why there is no finder
_off_because: Optional[str] = None


def register(settings: Optional[Settings] = None, refused: Optional[str] = None) -> None:
    """See to it that every urllib3 of this process is patched, present and future copies alike.

    Registering again only changes the settings.

    :param settings: None for the defaults.
    :param refused: why nothing is to be patched: the service's log is told so at its first
        connection.
    """
    global _finder
    if _finder is None:
        _retire_earlier_imports()
        _finder = _Finder()
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.settings, _finder.refused = settings, refused
    _finder.patch(copies.complete(copies.present()))


def unregister(off_because: str = "stalepool.uninstall() was called") -> List[str]:
    """Stop watching imports, and put urllib3 back as it was.

    :returns: the patches that could not be undone, see :func:`stalepool.uninstall`.
    """
    global _finder, _off_because
    finder, _finder = _finder, None
    _off_because = off_because
    left = [] if finder is None else finder.retire()
    if finder is not None and finder.loaded is not None:
        from stalepool import status

        status.show(describe)
    return left


def is_at_work() -> bool:
    """Tell whether something is patched, or will be as soon as there is something to patch."""
    return _finder is not None and _finder.is_at_work()


def describe() -> Dict[str, Any]:
    """Return the part of a snapshot that is about patching; plain data."""
    settings = registered_settings()
    patches = None if _finder is None or _finder.loaded is None else _finder.loaded[1]
    return {
        "installed": is_at_work(),
        "off_because": _off_because if _finder is None else _finder.why_off(),
        "settings": {} if settings is None else settings.explained(),
        "patched": [] if patches is None else patches.patched(),
        "unpatched": [] if patches is None else patches.unpatched(),
    }


def registered_settings() -> Optional[Settings]:
    """Return what :func:`register` was given last; None where nothing is registered."""
    from stalepool.settings import Settings

    return None if _finder is None else _finder.settings or Settings()


def _retire_earlier_imports() -> None:
    """A stalepool that was deleted from ``sys.modules`` gives way to the one imported again."""
    finders: List[Any] = list(sys.meta_path)
    for finder in finders:
        if type(finder).__module__ == __name__:
            finder.retire()


def _wrapt_is_there() -> bool:
    """Tell whether it can be imported, as far as that can be told without doing it."""
    if "wrapt" in sys.modules:
        return sys.modules["wrapt"] is not None
    from importlib.util import find_spec  # 4 ms: only for who asks

    return find_spec("wrapt") is not None
