"""The names of a connection's origin and of its peer; and which connections are known."""

from __future__ import annotations

import functools
from http.client import HTTPConnection  # by its own name: vcrpy replaces it in the module
from typing import Any


def origin_of(conn: Any) -> str:
    """Return ``scheme://host:port`` of the server that answers: of a CONNECT tunnel the far end."""
    host = getattr(conn, "_tunnel_host", None)
    host, port = (conn.host, conn.port) if host is None else (host, conn._tunnel_port)
    return _name_of(_scheme_of(conn), host, port)


def peer_of(conn: Any) -> str:
    """Return ``scheme://host:port`` of the peer: the origin, or a proxy."""
    socks, scheme = getattr(conn, "_socks_options", None), _scheme_of(conn)
    if socks is not None:
        return _name_of("socks", socks["proxy_host"], socks["proxy_port"])
    if getattr(conn, "_tunnel_host", None) is not None:
        # a tunnel that was set by hand has no proxy
        scheme = getattr(getattr(conn, "proxy", None), "scheme", "http")
    return _name_of(scheme, conn.host, conn.port)


def _scheme_of(conn: Any) -> str:
    return "https" if conn.default_port == 443 else "http"


@functools.lru_cache(maxsize=256)
def _name_of(scheme: str, host: str, port: Any) -> str:
    """Return one string for all connections to an origin, which saves some 70 bytes of each."""
    host = host.strip("[]")  # that of a tunnel has them
    return "%s://%s:%s" % (scheme, "[%s]" % host if ":" in host else host, port)


def is_http1(conn: Any) -> bool:
    """Tell whether a connection is of urllib3's own HTTP/1.1 class, or of one made from it.

    HTTP/2 connections get data while idle. Stubs, such as vcrpy's, compute their ``sock``.
    """
    cls = type(conn)  # not to be kept: a copy of urllib3 may be deleted
    if not issubclass(cls, HTTPConnection) or hasattr(cls, "sock"):
        return False
    modules = " ".join([base.__module__ for base in cls.__mro__]) + " "
    return "urllib3.connection " in modules and ".http2." not in modules
