"""A connection is opened: keepalive is armed before its first byte, be it TLS's or CONNECT's."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Tuple

from stalepool import aside, keepalive, runtime, stats
from stalepool.pooled import origin_of
from stalepool.wire import wire_of


def new_conn(
    wrapped: Callable[..., Any], instance: Any, args: Tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Around ``HTTPConnection._new_conn``, which returns a connected socket; wrapt's signature."""
    sock = wrapped(*args, **kwargs)
    installation = runtime.current
    if installation is not None and not installation.is_audit:
        try:
            wire = wire_of(sock)
            if wire is not None and keepalive.arm(wire, installation.settings):
                stats.origin(origin_of(instance)).armed.tick()
        except Exception as error:
            aside.stand_aside("keepalive_failed", repr(error))
    return sock
