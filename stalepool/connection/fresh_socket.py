"""A second socket to the same peer is opened, and takes the place of the first one."""

from __future__ import annotations

import _socket
import re
import struct
import weakref
from types import FunctionType
from typing import Any, List, Optional

from stalepool import fallback
from stalepool.clock import monotonic
from stalepool.connection.connect import PINNED, arm, connect_errors
from stalepool.connection.state import Request
from stalepool.foreign import drop_frames, is_a_deadline, is_a_handlers, raise_again
from stalepool.sockets import failure, tcp_info
from stalepool.sockets.keepalive import USER_TIMEOUT
from stalepool.sockets.layers import RawSocket, is_in_this_namespace, layers_of

#: modules whose classes and functions open a connection as urllib3 does
_is_stock = re.compile(
    r"(eventlet\.green\.)?http\.client|(.+\.)?urllib3\.(connection|contrib\.socks)"
).fullmatch

#: methods that open a connection; not all versions have all
_OPENERS = ("connect", "_new_conn", "_tunnel", "_prepare_conn")
#: hooks that may have been set on a connection itself: a clone would call the original's
_HOOKS = ("connect", "close", "send", "_new_conn", "_tunnel")

#: the connectionpool of each copy of urllib3
pool_modules: weakref.WeakSet[Any] = weakref.WeakSet()


@fallback.guarded("fresh_socket_failed")
def open_like(conn: Any, request: Request, limit_s: float, address: Optional[str] = None) -> Any:
    """Open a second socket to a connection's peer, tunnel and TLS included. Yields.

    A clone of the connection connects, and its peer's reconnect window applies. The caller has
    asked :func:`may_be_cloned`.

    :param limit_s: seconds for each operation (connect, tunnel, handshake).
    :param address: the peer's: then there is no DNS look-up, and no reconnect window.
    :returns: a socket with ``limit_s`` set on it; None if no socket can be opened.
    :raises: the caller's deadline.
    """
    clone: Any = object.__new__(type(conn))  # not by copy.copy(): that may be somebody's own
    vars(clone).update({**vars(conn), "sock": None, "timeout": limit_s, PINNED: address})
    clone._HTTPConnection__response = None  # the original's, which the clone must not close
    since, failed = monotonic(), None
    try:
        clone.connect()
        arm(clone.sock, request.state.origin, request.settings)
        fresh, clone.sock = clone.sock, None
        return fresh
    except connect_errors(clone) as error:
        _raise_a_deadline(error, since, limit_s)
        failed = error
    finally:
        if clone.sock is not None:  # the handshake failed, or a deadline came
            clone.sock.close()
    drop_frames(failed)
    return None


def _raise_a_deadline(error: BaseException, since: float, limit_s: float) -> None:
    """Raise the caller's deadline, if the error is one, or if urllib3 has made the error of one.

    A deadline may be any OSError, such as requests' ``Timeout``, or look like the socket's timeout.

    :param since: monotonic time at which the clone began to connect, in ``limit_s`` at most.
    """
    try:
        for link in (error, error.__cause__, error.__context__):
            if link is None or isinstance(link, _socket.gaierror):
                continue  # gevent has a resolver that raises where its timers do
            is_the_sockets = failure.has_run_out(link, since, limit_s)
            if is_a_deadline(link) and not is_the_sockets:
                raise_again(link)
    finally:
        del error, link  # a traceback holds this frame


def may_be_cloned(conn: Any) -> bool:
    """Tell whether a clone's ``connect()`` does what the connection's did, and no more.

    It does if it is urllib3's, and what it calls is. Another one may acquire what its ``close()``
    releases, be handed its socket, or note what is true of one socket.
    """
    cls, layers = type(conn), layers_of(conn.sock)
    # urllib3 1.26 itself clears it for a tunnel
    is_opened_by_hand = not conn.auto_open and getattr(conn, "_tunnel_host", None) is None
    has_hooks = not vars(conn).keys().isdisjoint(_HOOKS) or hasattr(cls, "__del__")
    if is_opened_by_hand or has_hooks or _pools_check_connections(cls):
        return False
    if layers is not None and not is_in_this_namespace(layers.raw):
        return False  # in this one another server may have the address
    return all(_is_urllib3s(cls, name) for name in _OPENERS if hasattr(cls, name))


def _is_urllib3s(cls: Any, name: str) -> bool:
    """Tell whether a method is urllib3's own, also where somebody has put a wrapper around it.

    Its class is urllib3's, or its function is: wrapt's wrappers show the globals of what they wrap.
    """
    owner = next(each for each in cls.__mro__ if name in vars(each))
    defined_in = getattr(vars(owner)[name], "__globals__", {}).get("__name__")
    return any(_is_stock(str(module)) for module in (owner.__module__, defined_in))


def _pools_check_connections(cls: Any) -> bool:
    """Tell whether a pool of this urllib3 has a hook of somebody's, as for pinning a certificate.

    A connection does not know its pool, which would call it for each of its new connections.
    """
    modules = copies_of(cls)
    classes = [module.HTTPConnectionPool for module in modules]
    for each in classes:
        classes += each.__subclasses__()
    made = ((each, each.ConnectionCls) for each in classes)  # a class, or a function that makes any
    makers = [each for each, of in made if not isinstance(of, type) or issubclass(cls, of)]
    hooks = [getattr(m, n, None) for m in makers for n in ("_validate_conn", "_prepare_proxy")]
    # by their code: a decorator's wrapper has the __module__ of what it wraps, and wrapt's has all
    stock = [id(vars(module)) for module in modules]
    return not all(type(h) is FunctionType and id(h.__globals__) in stock for h in hooks if h)


def copies_of(cls: Any) -> List[Any]:
    """Return the ``connectionpool`` of each copy of urllib3 that a connection class is made of."""
    return [module for module in pool_modules if module.HTTPConnection in cls.__mro__]


def address_of(conn: Any) -> Optional[str]:
    """Return the IP address to which a living socket leads; None: the name has to be looked up.

    It has to be if the address needs a scope (IPv6, link-local), if the port is not the
    connection's, as with a forwarder (docs/design.rst), or if a SOCKS proxy looks it up.
    """
    layers = layers_of(conn.sock)
    try:  # of the kernel's socket, since PySocks's own tells the far end
        name: Any = None if layers is None else layers.raw.getpeername()
    except OSError as error:
        if is_a_handlers(error):
            raise
        return None  # it has been reset meanwhile
    is_usable = isinstance(name, tuple) and name[1] == conn.port and not any(name[3:])
    return name[0] if is_usable and not hasattr(conn, "_socks_options") else None


def take(request: Request, fresh: Any) -> bool:
    """Give the connection its fresh socket, and only then close the old one.

    :returns: False if another thread has closed the connection, which takes none then.
    """
    conn, old = request.conn(), request.state.sock()
    if conn is None or old is None or conn.sock is not old:
        return False
    conn.sock = fresh
    request.state.follow(fresh)
    if request.is_replayed:
        abandon(old)
    else:
        old.close()
    return True


@fallback.guarded("replay_failed")
def abandon(sock: Any) -> None:
    """Close a socket, and drop what its peer has not acknowledged (SO_LINGER, socket(7)).

    The kernel would go on to send it for some 100 s (measured), so that a request might arrive
    after the caller's next ones. TCP_USER_TIMEOUT, tcp(7), ends that where a forked child has the
    socket open, too.
    """
    try:
        layers, at_once = layers_of(sock), struct.pack("ii", 1, 0)
        info = tcp_info.ask(layers)
        is_empty = info is not None and info.is_whole and info.missing <= 0 and not info.notsent
        if layers is not None and not is_empty:
            RawSocket.setsockopt(layers.raw, _socket.SOL_SOCKET, _socket.SO_LINGER, at_once)
            if layers.is_tcp and USER_TIMEOUT:
                RawSocket.setsockopt(layers.raw, _socket.IPPROTO_TCP, USER_TIMEOUT, 1)  # ms
    finally:
        sock.close()
