"""The ways from a client to a server: direct, through haproxy, through a proxy."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from typing import Any, Callable, Iterator, NamedTuple, Optional

import urllib3

from pools import pool_for
from stalepool_testing import TLS, ConnectProxy, FaultServer

ROUTES = ("direct", "haproxy", "proxy")

#: haproxy closes a client's connection after so long, in :func:`through_haproxy`'s ``keeps_ms``
FOR_EVER_MS = 60_000

_HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive {keeps_ms}ms
frontend front
    bind fd@{fd} {tls}
    default_backend back
backend back
    server one {host}:{port}
"""


class Route(NamedTuple):
    """``make_pool``: to the server, or to who hands it on; takes urllib3's options. ``cut``: has
    the proxy end all tunnels, with an RST if it is told so; None where there is none.
    """

    make_pool: Callable[..., Any]
    cut: Optional[Callable[[bool], Any]] = None


@contextlib.contextmanager
def route_to(
    server: FaultServer, name: str, tls: Optional[TLS], haproxy: str, keeps_ms: int = FOR_EVER_MS
) -> Iterator[Route]:
    """Lay a route. To a server without TLS a proxy is the server itself: clients make no tunnels.

    :param tls: the server's; behind haproxy, haproxy's.
    :param haproxy: its path.
    """
    if name == "direct":
        yield Route(lambda **options: pool_for(server, tls, **options))
    elif name == "haproxy":
        with through_haproxy(server, tls, haproxy, keeps_ms) as front:
            yield Route(lambda **options: pool_for(front, tls, **options))
    elif tls is None:
        yield Route(lambda **options: _pool_through(server, "http://far.example/", **options))
    else:
        ca_path = tls.ca_path
        with ConnectProxy() as proxy:
            yield Route(
                lambda **options: _pool_through(proxy, server.url, ca_certs=ca_path, **options),
                proxy.cut,
            )


def _pool_through(proxy: Any, url: str, **options: Any) -> Any:
    return urllib3.ProxyManager(proxy.url, retries=False, **options).connection_from_url(url)


class Front(NamedTuple):
    """Where haproxy listens."""

    host: str
    port: int
    family: int = socket.AF_INET


@contextlib.contextmanager
def through_haproxy(
    server: FaultServer, tls: Optional[TLS], haproxy: str, keeps_ms: int
) -> Iterator[Front]:
    """A real haproxy in front of a server without TLS; speaks TLS itself if it is told so."""
    with socket.socket() as listener, tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        values = {"keeps_ms": keeps_ms, "host": server.host, "port": server.port, "tls": ""}
        if tls is not None:
            version = tls.version
            values["tls"] = f"ssl crt {tls.cert_path} ssl-min-ver {version} ssl-max-ver {version}"
        file.write(_HAPROXY.format(fd=listener.fileno(), **values))
        file.flush()
        process = subprocess.Popen(
            [haproxy, "-q", "-db", "-f", file.name],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith("HAPROXY")},
        )
        try:
            front = Front(*listener.getsockname())
            _wait_until_up(front)
            yield front
        finally:
            process.kill()
            process.wait()


def _wait_until_up(front: Front) -> None:
    """It has begun to accept when it answers the end of a connection."""
    with socket.create_connection((front.host, front.port), timeout=30) as sock:
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while sock.recv(4096):
                pass
