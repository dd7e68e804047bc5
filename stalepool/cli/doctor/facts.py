"""Facts about this environment and about the machine, as plain data."""

from __future__ import annotations

import contextlib
import os
import platform
import site
import socket
from importlib import metadata
from pathlib import Path
from typing import Any, Dict

from stalepool.cli import inject, owners
from stalepool.cli.complaint import Complaint
from stalepool.cli.doctor import probe
from stalepool.settings import Settings, SettingsError

_PACKAGES = ("wrapt", "requests", "keystoneauth1", "eventlet", "gevent")
_START = "stalepool-start.pth"
_SYSCTLS = ("tcp_retries2", "tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes")
_SOCKET_OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


def of_environment() -> Dict[str, Any]:
    """Import urllib3 into this process, and return the facts about it."""
    found: Dict[str, Any] = {}
    try:
        found["socket"] = _socket_options()
    except ImportError as error:
        found["import_error"] = str(error)
    except Exception as error:  # perhaps of another library that has urllib3's name
        found["socket_error"] = repr(error)
    found.update(probe.of_process([]))
    found["versions"] = {**found["versions"], **_installed()}
    found["on_disk"] = copies_on_disk()
    places = [*site.getsitepackages(), site.getusersitepackages()]
    found["start"] = {
        "switch": os.environ.get("STALEPOOL"),
        "is_injectable": _is_injectable(),
        "has_start_file": any(os.path.isfile(os.path.join(place, _START)) for place in places),
        "writable_by_others": owners.first_writable_by_others(inject.PACKAGE_DIR),
    }
    return found


def _is_injectable() -> bool:
    try:
        inject.require_injectable()
    except Complaint:  # in a zip
        return False
    return True


def of_machine() -> Dict[str, Any]:
    """Return the kernel's release and defaults, and the settings in the environment."""
    try:
        settings: Any = Settings.from_environ(os.environ)
    except SettingsError as error:
        settings = str(error)
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "sysctls": _sysctls(),
        "settings": settings,
    }


def copies_on_disk() -> Dict[str, str]:
    """Return each installed copy of urllib3: package -> the distribution that has it."""
    found = {}
    for distribution in metadata.distributions():
        for file in distribution.files or ():
            if file.name == "connectionpool.py" and "urllib3" in str(file.parent):
                found[".".join(file.parent.parts)] = distribution.metadata["Name"]
    return dict(sorted(found.items()))


def _installed() -> Dict[str, str]:
    """Return the versions of packages that need not be imported, by their metadata."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _sysctls() -> Dict[str, int]:
    found = {}
    for name in _SYSCTLS:
        with contextlib.suppress(OSError, ValueError):
            found[name] = int(Path("/proc/sys/net/ipv4", name).read_text())
    return found


def _socket_options() -> Dict[str, int]:
    """Return the options of a connection that urllib3 makes on loopback, as the kernel has them.

    The kernel alone accepts it: a server would need a thread, and descriptors, which may be scarce.
    """
    import urllib3

    with socket.create_server(("127.0.0.1", 0)) as listening:
        conn: Any = urllib3.HTTPConnectionPool.ConnectionCls(*listening.getsockname())
        with contextlib.closing(conn):
            conn.request("GET", "/")
            asked = conn.sock.getsockopt
            found = {"SO_KEEPALIVE": asked(socket.SOL_SOCKET, socket.SO_KEEPALIVE)}
            for name in _SOCKET_OPTIONS:
                if hasattr(socket, name):
                    found[name] = asked(socket.IPPROTO_TCP, getattr(socket, name))
            return found
