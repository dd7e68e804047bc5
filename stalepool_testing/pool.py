"""Put a socket of one's own into a urllib3 pool."""

from __future__ import annotations

import _socket
import socket
from typing import Any


def into_pool(pool: Any, sock: socket.socket) -> Any:
    """Put a connection that holds this socket into a pool, as if it had been used before.

    The next ``pool.urlopen(...)`` uses it, and from now on the pool owns the socket. This neither
    connects nor checks the socket. For urllib3 1.26 and 2.x. Under eventlet a plain socket that was
    made before ``monkey_patch()`` is wrapped in a green one; a TLS socket must be green already.

    :param pool: an ``HTTPConnectionPool``, or an ``HTTPSConnectionPool`` for a TLS socket; it keeps
        its connections in one of the queues of ``queue``.
    :param sock: a connected socket in the state that is to be tested.
    :returns: the connection object.
    :raises TypeError: it is no such pool, or no socket.
    :raises ValueError: every place in the pool is taken.
    """
    if not hasattr(pool, "_new_conn"):
        raise TypeError(
            f"pool takes an HTTPConnectionPool, got {pool!r}: a PoolManager returns its pools by "
            "connection_from_url(url)"
        )
    if not hasattr(sock, "fileno"):
        raise TypeError(f"sock takes a socket, such as pair.client, got {sock!r}")
    is_native = isinstance(sock, _socket.socket) and not hasattr(sock, "pending")
    if is_native and not issubclass(socket.socket, _socket.socket):
        sock = socket.socket(sock)  # type: ignore[arg-type]  # GreenSocket takes a socket
    connection = pool._new_conn()
    connection.sock = sock
    if pool.scheme == "https":
        connection.is_verified = True  # urllib3 warns about what it has not verified itself
    places = pool.pool.queue  # filled with None; the last one is taken first
    try:
        places.remove(None)
    except ValueError:
        raise ValueError("the pool holds as many connections as its maxsize allows") from None
    places.append(connection)
    return connection
