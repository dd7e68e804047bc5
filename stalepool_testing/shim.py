"""Switch the shim on or off for one block."""

from __future__ import annotations

import contextlib
import sys
from types import ModuleType
from typing import Any, Iterator


@contextlib.contextmanager
def stalepool_on(**settings: Any) -> Iterator[None]:
    """Switch the shim on for the block, then restore what was in force before.

    :param settings: as for ``stalepool.install()``: each overrides its ``STALEPOOL_*`` variable.
        The kill switch in the environment is ignored.
    :raises SettingsError: a name is unknown or a value wrong.
    :raises RuntimeError: the shim cannot be switched on, or does not know this urllib3.
    """
    with _what_was_in_force() as stalepool:
        stalepool.install(**{"enabled": True, **settings})
        unpatched = stalepool.snapshot()["unpatched"]  # of copies in other packages, too
        if not stalepool.is_installed() or any(name.startswith("urllib3.") for name in unpatched):
            raise RuntimeError(f"stalepool could not be switched on: {stalepool.snapshot()}")
        yield


@contextlib.contextmanager
def stalepool_off() -> Iterator[None]:
    """Switch the shim off for the block, then restore what was in force before.

    An ``import stalepool`` inside the block does not switch it on.
    """
    with _what_was_in_force() as stalepool:
        stalepool.uninstall()
        yield


@contextlib.contextmanager
def _what_was_in_force() -> Iterator[ModuleType]:
    was_imported = "stalepool" in sys.modules
    import stalepool  # here: it switches the shim on
    from stalepool.patching import import_hook

    before = import_hook.registered_settings() if was_imported else None
    try:
        yield stalepool
    finally:
        if before is None:
            stalepool.uninstall()
        else:
            stalepool.install(**before.as_dict())
