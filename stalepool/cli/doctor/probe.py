"""The probe that ``stalepool doctor -- CMD`` runs in the program: it reports facts about it.

It is imported first there, so it imports only built-in modules, and keeps the functions from before
any ``monkey_patch()``. Twice a second a native thread appends the facts to a file, since a service
does not end by itself, and may end without ``atexit``.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import time
from typing import Any, Dict, List

#: how often the thread reports, and for how long: two minutes, longer than anybody reads
_LOOK_EVERY_S, _LOOKS = 0.5, 240

#: module -> the tool that wraps HTTP clients when it is loaded
TOOLS = {
    "opentelemetry.instrumentation.urllib3": "OpenTelemetry",
    "opentelemetry.instrumentation.requests": "OpenTelemetry",
    "ddtrace": "ddtrace",
    "newrelic": "New Relic",
    "sentry_sdk": "Sentry",
    "elasticapm": "Elastic APM",
    "aws_xray_sdk": "AWS X-Ray",
    "lumigo_tracer": "Lumigo",
}


def start(reports: int) -> None:
    """Begin to report the facts of this process, and of those forked from it.

    :param reports: a descriptor of the file to append to: the process may change its user, and
        then could not open a file.
    """
    hub_at_import: List[str] = []
    watched: List[int] = []
    append, identity, sleep = os.write, os.fstat, time.sleep
    file = identity(reports)[1:3]

    def hook(event: str, args: Any) -> None:
        if event != "import":
            return
        if os.getpid() not in watched:  # forked; uWSGI does it without telling Python
            begin()
        if not hub_at_import and args[0] == "urllib3":
            hub_at_import.append(hub())

    def report() -> None:
        try:
            text = "%r\n" % of_process(hub_at_import)
            if identity(reports)[1:3] == file:  # the program has not closed it and opened another
                append(reports, text.encode())
        except Exception:  # a diagnosis must not harm the program
            pass

    def look_on() -> None:
        for _ in range(_LOOKS):
            sleep(_LOOK_EVERY_S)
            report()

    def begin() -> None:
        watched.append(os.getpid())
        _thread.start_new_thread(look_on, ())

    sys.addaudithook(hook)
    atexit.register(report)
    begin()


def hub() -> str:
    """Return the library that has made sockets green: "eventlet", "gevent" or empty."""
    eventlet = sys.modules.get("eventlet.patcher")
    if getattr(eventlet, "already_patched", {}).get("socket"):
        return "eventlet"
    gevent = sys.modules.get("gevent.monkey")
    return "gevent" if gevent is not None and gevent.is_module_patched("socket") else ""


def of_process(hub_at_import: List[str]) -> Dict[str, Any]:
    """Return the facts, without an import that the program has not made.

    :param hub_at_import: the library that had made sockets green when urllib3 was imported; an
        empty list before that.
    """
    loaded = dict(sys.modules)
    versions = {
        name: getattr(loaded[name], "__version__", "")
        for name in ("stalepool", "urllib3", "wrapt", "requests", "eventlet", "gevent")
        if name in loaded
    }
    return {
        "pid": os.getpid(),
        "modules": len(loaded),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "implementation": sys.implementation.name,
        "versions": {"openssl": getattr(loaded.get("ssl"), "OPENSSL_VERSION", ""), **versions},
        "snapshot": _snapshot(loaded),
        "pools": sorted(
            {
                getattr(module, "__name__", name)
                for name, module in loaded.items()
                if name.endswith(".connectionpool") and hasattr(module, "HTTPConnectionPool")
            }
        ),
        "tools": sorted({tool for module, tool in TOOLS.items() if module in loaded}),
        "hub": hub(),
        "hub_at_import": hub_at_import,
        "uwsgi": sorted(getattr(loaded.get("uwsgi"), "opt", {})),  # the names of its options
        "without_timeout": _without_timeout(loaded),
    }


def _snapshot(loaded: Dict[str, Any]) -> Dict[str, Any]:
    if "stalepool.runtime" not in loaded:  # nothing is patched, and snapshot() would import
        return {"patched": [], "unpatched": []}
    found: Dict[str, Any] = loaded["stalepool"].snapshot()
    return {key: found[key] for key in ("installed", "mode", "patched", "unpatched", "fallbacks")}


def _without_timeout(loaded: Dict[str, Any]) -> List[str]:
    """Return the client sections of oslo.config that are in use and have no timeout."""
    config: Any = loaded.get("oslo_config.cfg")
    found: List[str] = []
    if config is None:
        return found
    for name in list(config.CONF):
        group = config.CONF[name]
        # keystoneauth1 registers these two, and others, for each service that is called
        if isinstance(group, config.ConfigOpts.GroupAttr) and {"timeout", "cafile"} <= set(group):
            is_used = "auth_type" not in group or group["auth_type"] is not None
            if is_used and group["timeout"] is None:
                found.append("[%s] timeout" % name)
    return sorted(found)
