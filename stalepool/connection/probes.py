"""Keepalive on a connection's socket: armed once it is connected, rare if probes are swallowed."""

from __future__ import annotations

from typing import Any

from stalepool import fallback, stats
from stalepool.connection.state import sockets_of
from stalepool.settings import Settings
from stalepool.sockets import keepalive
from stalepool.sockets.layers import layers_of


@fallback.guarded("keepalive_failed")
def arm(sock: Any, origin: stats.Origin, settings: Settings) -> None:
    """Arm keepalive, after ``connect()``: that may set the application's own options."""
    layers = layers_of(sock)
    # where probes are swallowed, keepalive would end living connections
    if layers and not origin.knowledge.swallows_probes and keepalive.apply_policy(layers, settings):
        origin.armed.tick()


def note_probes_swallowed(origin: stats.Origin, settings: Settings) -> None:
    """Note that an origin's probes are swallowed, and probe its connections rarely: they live."""
    origin.knowledge.note_probes_swallowed()
    for sock in sockets_of(origin):
        keepalive.probe_rarely(layers_of(sock), settings)
