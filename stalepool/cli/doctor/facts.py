"""Facts about this environment and about the machine, as plain data."""

from __future__ import annotations

import os
import platform
import site
import socket
import ssl
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List

from stalepool.cli import inject, owners
from stalepool.cli.doctor import probe
from stalepool.settings import Settings, SettingsError
from stalepool_testing import FaultServer, Respond

_PACKAGES = ("stalepool", "urllib3", "wrapt", "requests", "keystoneauth1", "eventlet", "gevent")
_START = "stalepool-start.pth"
_SYSCTLS = ("tcp_retries2", "tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes")
_SOCKET_OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


def of_environment() -> Dict[str, Any]:
    """Import urllib3 into this process, and return the facts about it."""
    found: Dict[str, Any] = {}
    try:
        import urllib3.connectionpool  # noqa: F401
    except ImportError as error:
        found["import_error"] = str(error)
    else:
        try:
            found["socket"] = _socket_options()
        except Exception as error:  # perhaps of another library that has urllib3's name
            found["socket_error"] = repr(error)
    found.update(probe.of_process([]))
    installed = {name: version for name, version in map(_installed, _PACKAGES) if version}
    found["versions"] = {**installed, **found["versions"], "openssl": ssl.OPENSSL_VERSION}
    found["on_disk"] = copies_on_disk()
    found["start"] = {
        "switch": os.environ.get("STALEPOOL"),
        "has_start_file": any(Path(place, _START).is_file() for place in _site_packages()),
        "writable_by_others": owners.first_writable_by_others(inject.PACKAGE_DIR),
    }
    return found


def of_machine() -> Dict[str, Any]:
    """Return the kernel's release and defaults, and the settings in the environment."""
    try:
        settings: Any = Settings.from_environ(os.environ)
    except SettingsError as error:
        settings = str(error)
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "sysctls": dict(filter(lambda item: item[1] is not None, map(_sysctl, _SYSCTLS))),
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


def _site_packages() -> List[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]


def _installed(package: str) -> Any:
    try:
        return package, metadata.version(package)
    except metadata.PackageNotFoundError:
        return package, ""


def _sysctl(name: str) -> Any:
    try:
        return name, int(Path("/proc/sys/net/ipv4", name).read_text())
    except (OSError, ValueError):
        return name, None


def _socket_options() -> Dict[str, int]:
    """Return the options of a connection that urllib3 makes on loopback, as the kernel has them."""
    import urllib3

    with FaultServer([Respond(200)]) as server, urllib3.HTTPConnectionPool(
        server.host, server.port
    ) as pool:
        pool.request("GET", "/")
        assert pool.pool is not None
        (connected,) = _sockets(list(pool.pool.queue))
        found = {"SO_KEEPALIVE": connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)}
        for name in _SOCKET_OPTIONS:
            if hasattr(socket, name):
                option = getattr(socket, name)
                found[name] = connected.getsockopt(socket.IPPROTO_TCP, option)
        return found


def _sockets(connections: List[Any]) -> List[Any]:
    return [conn.sock for conn in connections if conn is not None]
