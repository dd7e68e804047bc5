"""A socket of one's own into a urllib3 pool."""

from __future__ import annotations

import _socket
import queue
import socket
from typing import Any


def into_pool(pool: Any, sock: socket.socket) -> Any:
    """Put a connection that holds this socket into a pool, as if it had been used before.

    The next ``pool.urlopen(...)`` takes it. The pool owns the socket from then on. Neither
    connects nor looks at the socket. urllib3 1.26 and 2.x; under eventlet a socket made
    before ``monkey_patch()`` is wrapped in a green one (a plain one: TLS sockets must be
    made by the ``ssl`` module of the caller's world).

    :param pool: an ``HTTPConnectionPool``, or an ``HTTPSConnectionPool`` for a TLS socket.
    :param sock: a connected socket in whatever state is to be tested.
    :returns: the connection object.
    :raises ValueError: when every place in the pool is taken.
    """
    is_native = isinstance(sock, _socket.socket) and not hasattr(sock, "pending")
    if is_native and not issubclass(socket.socket, _socket.socket):
        sock = socket.socket(sock)  # type: ignore[arg-type]  # GreenSocket takes a socket
    connection = pool._new_conn()
    connection.sock = sock
    if pool.scheme == "https":
        connection.is_verified = True  # urllib3 warns about what it has not verified itself
    _replace_empty_place(pool.pool, connection)
    return connection


def _replace_empty_place(places: Any, connection: Any) -> None:
    # a pool is a LIFO queue that None fills up: one None goes, ours lies on top
    taken = []
    while True:
        try:
            taken.append(places.get_nowait())
        except queue.Empty:
            break
    free = taken.count(None)
    if free:
        taken.remove(None)
    for place in reversed(taken):
        places.put_nowait(place)
    if not free:
        raise ValueError("the pool holds as many connections as its maxsize allows")
    places.put_nowait(connection)
