"""Switching the shim on and off by hand, and asking what it has seen."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from stalepool import aside, hook, runtime, stats
from stalepool.settings import Settings


def install(**settings: Any) -> None:
    """Make every urllib3 pool of this process look at a connection before it is reused.

    ``import stalepool`` has done this already, with the settings of the environment. Call it to set
    others, or to switch on again after :func:`uninstall`. Calling it twice patches once. Holds for
    urllib3 imported already or later, and for connections that are already pooled.

    :param settings: any of :data:`stalepool.knobs.KNOBS`; each goes before its ``STALEPOOL_*``
        variable. ``enabled=False`` uninstalls.
    :raises SettingsError: a name is unknown or a value wrong; nothing has changed then.
    """
    chosen = Settings.from_environ(os.environ, **settings)
    if not chosen.enabled:
        uninstall()
        return
    hook.register(chosen)
    if runtime.current is not None:
        runtime.start(chosen)


def uninstall() -> List[str]:
    """Put urllib3 back as it was.

    Connections that are pooled keep their keepalive and their last user timeout; the pools of
    urllib3 cannot be found from here.

    :returns: the seams on which somebody else has wrapped since. There ours cannot be taken out and
        stays, as a pass-through; it is logged at WARNING. Empty: urllib3 is as it was.
    """
    return hook.unregister()


def is_installed() -> bool:
    """Whether urllib3 is patched, or will be as soon as it is imported.

    False as well where that failed, without wrapt for one; ``fallbacks`` in :func:`snapshot` and
    one WARNING say so.
    """
    return hook.is_at_work()


def snapshot() -> Dict[str, Any]:
    """What the shim has seen and done in this process, as plain data (dicts, strings, numbers).

    ``origins`` by ``scheme://host:port``, and their ``totals``: ``checkouts``, ``discards``, their
    ``verdicts``, ``keepalive_armed``, and ``died_idle_s``: how long, in seconds, connections had
    been idle when they died, as counts per bucket edge (a server's idle timeout shows here).
    ``fallbacks``: how often the shim left something to urllib3, by reason. In audit mode discards
    are those that active mode would have made. ``installed`` is :func:`is_installed`, ``mode`` is
    None while no urllib3 is patched, ``pid`` tells the processes of a service apart.
    """
    installed, current = is_installed(), runtime.current
    return {
        "installed": installed,
        "mode": current.settings.mode if installed and current is not None else None,
        "pid": os.getpid(),
        **stats.snapshot(),
        "fallbacks": aside.counts(),
    }
