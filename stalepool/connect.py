"""A connection is opened: tried again if it is refused, and armed with keepalive.

Keepalive is on before the connection's first byte, be it TLS's or CONNECT's.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Mapping, Tuple

from stalepool import aside, keepalive, reconnect, runtime, stats
from stalepool.pooled import is_http1, origin_of
from stalepool.wire import wire_of


def make_new_conn(connectionpool: Any) -> Callable[..., Any]:
    """The wrapper around ``HTTPConnection._new_conn``, which returns a connected socket."""
    pause = reconnect.make_pause(connectionpool)

    def new_conn(
        wrapped: Callable[..., Any], instance: Any, args: Tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        installation = runtime.current
        if installation is None or installation.is_audit or not is_http1(instance):
            return wrapped(*args, **kwargs)
        settings = installation.settings
        try_once = functools.partial(wrapped, *args, **kwargs)
        sock = reconnect.connect(try_once, instance, settings.reconnect_window_s, pause)
        try:
            wire = wire_of(sock)
            if wire is not None and keepalive.arm(wire, settings):
                stats.origin(origin_of(instance)).armed.tick()
        except Exception as error:
            aside.stand_aside("keepalive_failed", repr(error))
        return sock

    return new_conn
