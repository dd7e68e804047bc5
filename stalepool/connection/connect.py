"""Opening a socket: a refused connect may be tried again, and keepalive is armed.

Replaces ``HTTPConnection._new_conn``.
"""

from __future__ import annotations

from typing import Any, Callable

from stalepool import fallback, runtime, stats
from stalepool.connection.origins import is_http1
from stalepool.connection.reconnect import open_socket
from stalepool.connection.state import note_opened, sockets_of
from stalepool.settings import Settings
from stalepool.sockets import keepalive
from stalepool.sockets.layers import layers_of

#: attribute of a copy of a connection: the address to connect to, once, without a DNS look-up
PINNED = "_stalepool_pinned"


def make_new_conn(original: Callable[[Any], Callable[[], Any]], module: Any) -> Callable[..., Any]:
    """Return the function that replaces urllib3's; ``original`` binds that to a connection."""

    def _new_conn(self: Any) -> Any:
        settings, stock = runtime.current, original(self)
        if settings is None or settings.is_audit or not is_http1(self):
            return stock()
        address = getattr(self, PINNED, None)
        if address is None:
            sock = open_socket(stock, self, settings, module)
        else:
            sock = _connect_to(self, address, stock)
        note_opened(sock)
        return sock

    return _new_conn


def _connect_to(conn: Any, address: str, stock: Callable[[], Any]) -> Any:
    """Connect to an address; everything but the connect still sees the name."""
    if hasattr(conn, "_socks_options"):  # the proxy looks the name up
        return stock()
    name, conn._dns_host = conn._dns_host, address
    try:
        return stock()
    finally:
        conn._dns_host = name


@fallback.guarded("keepalive_failed")
def arm(sock: Any, origin: stats.Origin, settings: Settings) -> None:
    """Arm keepalive, once the application has set its options, which ``connect()`` may do."""
    layers = layers_of(sock)
    # where probes are swallowed, keepalive would end living connections
    if layers and not origin.knowledge.swallows_probes and keepalive.arm(layers, settings):
        origin.armed.tick()


def note_probes_swallowed(origin: stats.Origin, settings: Settings) -> None:
    """Note that an origin's probes are swallowed, and probe its connections rarely: they live."""
    origin.knowledge.note_probes_swallowed()
    for sock in sockets_of(origin):
        _probe_rarely(sock, settings)


@fallback.guarded("keepalive_failed")
def _probe_rarely(sock: Any, settings: Settings) -> None:
    keepalive.probe_rarely(layers_of(sock), settings)
