"""Switch the shim on and off, and get what it has counted."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from stalepool import status
from stalepool.patching import import_hook
from stalepool.settings import Settings


def install(**settings: Any) -> None:
    """Make every urllib3 pool of this process check a connection before it is reused.

    ``import stalepool`` has done this already, with the settings of the environment. Call it to set
    others, or to switch on again after :func:`uninstall`. It affects urllib3 whether imported
    before or later, the copies of it in other packages, and connections that are already pooled.

    :param settings: any of :data:`stalepool.settings.SETTINGS`; each overrides its
        ``STALEPOOL_*`` variable. ``enabled=False`` uninstalls.
    :raises SettingsError: a name is unknown or a value wrong; then nothing has changed.
    """
    chosen = Settings.from_environ(os.environ, **settings)
    if chosen.enabled:
        import_hook.register(chosen)
    else:
        import_hook.unregister("enabled=False")


def uninstall() -> List[str]:
    """Put urllib3 back as it was.

    Pooled connections keep the keepalive that was set on them, because the pools of urllib3 cannot
    be found from here.

    :returns: the patched functions that somebody else has wrapped since. Ours cannot be removed
        there, and stays as a pass-through; this is logged at WARNING. Empty: urllib3 is as it was.
    """
    return import_hook.unregister()


def is_installed() -> bool:
    """Tell whether urllib3 is patched, or will be as soon as it is imported.

    It is False, too, if patching failed; ``fallbacks`` in :func:`snapshot` and one WARNING say so.
    """
    return bool(import_hook.describe()["installed"])


def snapshot() -> Dict[str, Any]:
    """Return what the shim has seen and done in this process: dicts, strings and numbers.

    ``origins``, by ``scheme://host:port``, have counters and what was learnt, ``totals`` the sums;
    the rest is about the process. docs/operating.rst says what each key is.
    """
    return status.snapshot(import_hook.describe())
