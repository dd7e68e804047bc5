"""Start-up at ``import stalepool``: registers the import hook, and does nothing else.

It may run in every Python process of a machine. So it needs only the standard library and a
millisecond, and raises nothing. A wrong setting is reported on stderr, and nothing is patched.
"""

from __future__ import annotations

import os
import sys

from stalepool.patching import import_hook

_PREFIX = "STALEPOOL_"  # settings.PREFIX, without importing that if there is no need


def start() -> None:
    """Register the hook with the settings of the environment. Raises nothing."""
    try:
        if not any(name.startswith(_PREFIX) for name in os.environ):
            import_hook.register()
            return
        from stalepool.settings import Settings, SettingsError, contradictions

        try:
            settings = Settings.from_environ(os.environ)
        except SettingsError as error:
            if not is_the_command():  # which reports it by itself, if it needs settings
                say("stalepool: not active in this process: %s" % error)
                import_hook.register(refused=str(error))
            return
        if settings.enabled:
            import_hook.register(settings)
            problems = contradictions(settings)
            if problems and not is_the_command():
                say("stalepool: settings contradict one another: %s" % "; ".join(problems))
        else:
            import_hook.unregister("STALEPOOL_ENABLED=%s" % os.environ["STALEPOOL_ENABLED"])
    except Exception as error:
        say("stalepool: not active in this process: %r" % (error,))


def is_the_command() -> bool:
    """Tell whether this process is ``stalepool ...`` or ``python -m stalepool ...``."""
    words: list[str] = getattr(sys, "argv", None) or [""]
    if words[0] != "-m":
        return os.path.basename(words[0]) == "stalepool"
    # argv gets the module's name later; in the whole line it stands before the rest of argv
    line: list[str] = getattr(sys, "orig_argv", words)  # Python 3.10
    return line[-len(words) :][:1] in (["stalepool"], ["-mstalepool"])


def say(sentence: str) -> None:
    """Write one line on stderr, if there is one."""
    try:
        sys.stderr.write(sentence + "\n")
    except (AttributeError, OSError, ValueError):  # None under pythonw and some daemons; closed
        pass
