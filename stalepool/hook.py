"""When the seams are applied: as soon as there is a urllib3, on every copy, and not before.

Nothing is imported here until then; wrapt (23-90 ms) and the rest of stalepool are loaded when
urllib3 is loaded for the first time, so a process that makes no HTTP request never pays, and
``eventlet.monkey_patch()`` may still come.

wrapt's post-import hook serves the first load of ``urllib3.connectionpool``. It fires once a
process, so a finder of our own watches every later load: after a deletion from ``sys.modules``, on
``importlib.reload``, for the second copy of ``eventlet.import_patched``; and the first as well
where wrapt is older than 1.15, whose hook leaves a trace in the module's loader and cannot load
from a zip file on Python 3.9. A copy that was half built when we came is complete by the time
``urllib3.poolmanager`` is loaded.

No exception leaves this module for an import to trip over: with wrapt, a hook that raises makes
the import itself fail. And nothing is imported while a finder is asked: the interpreter holds its
global import lock then, and another thread may be waiting for it, holding the lock of what we would
import.
"""

from __future__ import annotations

import sys

from stalepool import copies, loaders
from stalepool.copies import AFTER_POOL, PACKAGE, POOL, SESSION

TYPE_CHECKING = False  # as mypy understands it, without importing typing
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, List, Optional

    from stalepool.settings import Settings


class _Finder:
    """First on ``sys.meta_path``; finds what the others find, and watches it being loaded."""

    def __init__(self) -> None:
        self.settings: Optional[Settings] = None  # the defaults
        self.wrapt_is_told = False
        self.wrapt_serves_next = False
        self.has_failed = False
        self.loaded: Any = None  # our modules runtime and seams, once there is a urllib3

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> Optional[ModuleSpec]:
        try:
            if self.is_to_watch(fullname):
                return self.watched_spec(fullname, path, target)
        except Exception:  # another finder's, who will raise it again for the interpreter
            pass
        return None

    def is_to_watch(self, fullname: str) -> bool:
        if fullname == POOL:
            return not self.wrapt_serves_next
        return fullname in (PACKAGE, AFTER_POOL, SESSION)

    def watched_spec(self, fullname: str, path: Any, target: Any) -> Optional[ModuleSpec]:
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec: Optional[ModuleSpec] = None if find is None else find(fullname, path, target)
            if spec is not None:
                loaders.watch(spec, self.before_load, self.after_load)
                return spec
        return None

    def before_load(self, fullname: str) -> None:
        if fullname == PACKAGE:
            self.tell_wrapt()
        elif fullname == AFTER_POOL and not self.has_applied(sys.modules.get(POOL)):
            self.apply(sys.modules.get(POOL))

    def after_load(self, module: ModuleType) -> None:
        if module.__name__ in copies.WATCHED:
            self.apply(module)

    def tell_wrapt(self) -> None:
        if self.wrapt_is_told:
            return
        self.wrapt_is_told = True
        try:
            from stalepool import originals

            with originals.in_sight():
                import wrapt
            if _has_a_faithful_hook(wrapt):
                self.wrapt_serves_next = True
                wrapt.register_post_import_hook(self.on_first_load, POOL)
                # wrapt puts a finder of its own first
                others = [finder for finder in sys.meta_path if finder is not self]
                sys.meta_path[:] = [self, *others]
        except Exception as error:
            self.wrapt_serves_next = False
            self.fail(error)

    def on_first_load(self, module: ModuleType) -> None:
        self.wrapt_serves_next = False
        self.apply(module)

    def has_applied(self, module: Optional[ModuleType]) -> bool:
        return self.loaded is not None and module in self.loaded[1].copies

    def apply(self, module: Optional[ModuleType]) -> None:
        """Put the settings in force and wrap one copy's seams; a half-built one has to wait."""
        if module is None or self is not _finder or copies.is_half_built(module):
            return
        try:
            from stalepool import originals

            with originals.in_sight():
                from stalepool import runtime, seams, settings
            self.loaded = runtime, seams
            runtime.start(self.settings or settings.Settings())
            seams.apply(module)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        self.has_failed = True
        _stand_aside(error)

    def is_at_work(self) -> bool:
        """False where nothing was patched, and nothing is going to be."""
        if self.loaded is not None and self.loaded[1].copies:
            return True
        return not self.has_failed and _wrapt_is_there()

    def retire(self) -> List[str]:
        """Undo everything; returns what could not be undone."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self.loaded is None:
            return []
        runtime, seams = self.loaded
        runtime.stop()
        left: List[str] = seams.remove()
        return left


_finder: Optional[_Finder] = None


def register(settings: Optional[Settings] = None) -> None:
    """See to it that every urllib3 of this process gets the seams, present and future copies alike.

    Registering again only changes the settings.

    :param settings: None for the defaults.
    """
    global _finder
    if _finder is None:
        _retire_earlier_imports()
        _finder = _Finder()
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.settings = settings
    if PACKAGE in sys.modules:
        _finder.tell_wrapt()
    for module in copies.present():
        _finder.apply(module)


def unregister() -> List[str]:
    """Stop watching imports, and put urllib3 back as it was.

    :returns: the seams that could not be put back, see :func:`stalepool.uninstall`.
    """
    global _finder
    finder, _finder = _finder, None
    return [] if finder is None else finder.retire()


def is_at_work() -> bool:
    """Whether something is patched, or will be as soon as there is something to patch."""
    return _finder is not None and _finder.is_at_work()


def _retire_earlier_imports() -> None:
    """A stalepool that was deleted from ``sys.modules`` gives way to the one imported again."""
    finders: List[Any] = list(sys.meta_path)
    for finder in finders:
        if type(finder).__module__ == __name__:
            finder.retire()


def _wrapt_is_there() -> bool:
    """Whether it can be imported, as far as that can be told without doing it."""
    if "wrapt" in sys.modules:
        return sys.modules["wrapt"] is not None
    from importlib.util import find_spec  # 4 ms: only for who asks

    return find_spec("wrapt") is not None


def _has_a_faithful_hook(wrapt: ModuleType) -> bool:
    """Whether this wrapt's own hook loads whatever it meets, and leaves the module's loader."""
    major, minor = map(int, wrapt.__version_info__[:2])
    return (major, minor) >= (1, 15)


def _stand_aside(error: Exception) -> None:
    try:
        from stalepool import aside

        aside.stand_aside("hook_failed", repr(error))
    except Exception:  # nothing is left to say it with
        pass
