"""Switching the shim on and off by hand, and asking what it has seen."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from stalepool import runtime, status
from stalepool.patching import import_hook
from stalepool.settings import Settings


def install(**settings: Any) -> None:
    """Make every urllib3 pool of this process check a connection before it is reused.

    ``import stalepool`` has done this already, with the settings of the environment. Call it to set
    others, or to switch on again after :func:`uninstall`. Calling it twice patches once. Holds for
    urllib3 imported already or later, for the copies that other packages carry inside, and for
    connections that are already pooled.

    :param settings: any of :data:`stalepool.settings.SETTINGS`; each goes before its
        ``STALEPOOL_*`` variable. ``enabled=False`` uninstalls.
    :raises SettingsError: a name is unknown or a value wrong; nothing has changed then.
    """
    chosen = Settings.from_environ(os.environ, **settings)
    if not chosen.enabled:
        import_hook.unregister("enabled=False")
        return
    import_hook.register(chosen)
    if runtime.current is not None:
        runtime.start(chosen)


def uninstall() -> List[str]:
    """Put urllib3 back as it was.

    Pooled connections keep the keepalive that was set on them; the pools of urllib3 cannot be
    found from here.

    :returns: the patched functions that somebody else has wrapped since. There ours cannot be taken
        out and stays, as a pass-through; it is logged at WARNING. Empty: urllib3 is as it was.
    """
    return import_hook.unregister()


def is_installed() -> bool:
    """Tell whether urllib3 is patched, or will be as soon as it is imported.

    False as well where that failed, without wrapt for one; ``fallbacks`` in :func:`snapshot` and
    one WARNING say so.
    """
    return import_hook.is_at_work()


def snapshot() -> Dict[str, Any]:
    """Return what the shim has seen and done in this process: dicts, strings and numbers.

    ``patched`` names the patched modules, one of each live copy of urllib3; ``unpatched`` what was
    met and could not be patched, and why. ``origins`` by ``scheme://host:port``, and their
    ``totals``: ``checkouts``, ``discards``, their ``verdicts``, ``keepalive_armed``, and
    ``died_idle_s``: how long, in seconds, connections had been idle when they died, as counts per
    bucket edge (a server's idle limit shows here). ``fallbacks``: how often the shim fell back to
    urllib3, by reason. In audit mode discards are those that active mode would have made.
    ``saved`` and ``gone``: requests that urllib3 alone would have lost, and why connections went.
    ``installed`` is :func:`is_installed`, ``off_because`` says why not; ``mode`` is None while no
    urllib3 is patched, ``pid`` tells the processes of a service apart, ``since`` is when this one
    began to count (its start or its fork), in seconds since the epoch. ``settings``: the ``value``
    of each, and where it is ``from``. ``versions``: of Python and of what is loaded.
    """
    return status.snapshot(import_hook.describe())
