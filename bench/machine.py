"""What was measured on, and with which versions."""

from __future__ import annotations

from typing import Any, Dict

import pyperf

_MACHINE = (
    "cpu_model_name",
    "cpu_count",
    "platform",
    "python_implementation",
    "python_version",
    "load_avg_1min",
)
_PACKAGES = ("urllib3", "wrapt", "eventlet", "greenlet", "pyperf")


def describe() -> Dict[str, Any]:
    """The machine as pyperf sees it, and the versions of what takes part."""
    from importlib import metadata

    import stalepool

    seen = pyperf.Run([1.0]).get_metadata()  # collects what it knows of the machine
    return {
        **{name: seen[name] for name in _MACHINE if name in seen},
        "date": str(seen.get("date", ""))[:10],
        "stalepool": stalepool.__version__,
        **{name: metadata.version(name) for name in _PACKAGES},
    }
