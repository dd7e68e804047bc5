"""The stale states of a connection, by name."""

from __future__ import annotations

import socket
from typing import Any, Callable, Mapping

from stalepool_testing import sockets, tls_sockets
from stalepool_testing.sockets import Pair

#: name -> the function that makes it; each is a connection that must not be used again
PLAIN: Mapping[str, Callable[..., Pair]] = {
    "eof": sockets.eof,
    "half_closed": sockets.half_closed,
    "reset": sockets.reset,
    "unread": sockets.unread,
    "black_hole": sockets.black_hole,
}
OVER_TLS: Mapping[str, Callable[..., Pair]] = {
    "close_notify": tls_sockets.close_notify,
    "tls_unread": tls_sockets.tls_unread,
    "surplus_in_tls": tls_sockets.surplus_in_tls,
}


def stale_states(tls: bool | None = None) -> list[str]:
    """Return the names of the stale states, for ``pytest.mark.parametrize("stale", ...)``.

    :param tls: True: only those over TLS; False: only the plain ones; ``None``, the default: all.
    """
    plain = [] if tls else list(PLAIN)
    return plain if tls is False else [*plain, *OVER_TLS]


def stale_socket(state: str, *, family: int = socket.AF_INET, **options: Any) -> Pair:
    """Return a connection in one of the states of :func:`stale_states`; a context manager.

    :param family: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX``.
    :param options: further arguments of the function of that name, such as ``version`` over TLS.
    :raises ValueError: the name is no state.
    :raises Unavailable: this machine cannot make the state.
    """
    make = {**PLAIN, **OVER_TLS}.get(state)
    if make is None:
        raise ValueError(f"{state!r} is no stale state: it takes {', '.join(stale_states())}")
    return make(family=family, **options)
