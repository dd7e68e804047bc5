"""What happens at ``import stalepool``: the hook is registered, and nothing else.

Runs in somebody else's start-up, perhaps in every Python process of a machine: standard library
only, a millisecond, and no exception ever comes out. Settings are looked at only where there are
any; a wrong one is said once on stderr and leaves the process as it would be without us.
"""

from __future__ import annotations

import os
import sys

from stalepool import hook

_PREFIX = "STALEPOOL_"


def start() -> None:
    """Register the hook with the settings of the environment. Raises nothing."""
    try:
        if not any(name.startswith(_PREFIX) for name in os.environ):
            hook.register()
            return
        from stalepool.settings import Settings, SettingsError

        try:
            settings = Settings.from_environ(os.environ)
        except SettingsError as error:
            say("stalepool: not active in this process: %s" % error)
            return
        if settings.enabled:
            hook.register(settings)
    except Exception as error:
        say("stalepool: not active in this process: %r" % (error,))


def say(sentence: str) -> None:
    """One line on stderr, where there is one."""
    try:
        sys.stderr.write(sentence + "\n")
    except Exception:  # closed, or None under pythonw and some daemons
        pass
