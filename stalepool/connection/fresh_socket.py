"""A second socket to the same peer: before a request goes out (a move), or to replay one."""

from __future__ import annotations

import _socket
import logging
import struct
import weakref
from types import FunctionType
from typing import Any, Optional

from stalepool import fallback, stats
from stalepool.clock import monotonic
from stalepool.connection.connect import PINNED, arm, connect_errors, number_of, shorter
from stalepool.connection.request import Request
from stalepool.foreign import is_a_handlers, is_socket_timeout, is_timeout, raise_again
from stalepool.sockets import tcp_info
from stalepool.sockets.keepalive import USER_TIMEOUT
from stalepool.sockets.layers import (
    RawSocket,
    is_in_this_namespace,
    layers_of,
    raw_of,
    timeout_of,
)

_logger = logging.getLogger("stalepool.fresh_socket")

#: modules whose functions open a connection as urllib3 does
_STOCK = ("urllib3.connection", "stalepool.connection.connect")

#: hooks that may have been set on a connection itself: a copy would call the original's
_HOOKS = ("connect", "close", "send", "_new_conn", "_tunnel")

#: the connectionpool of each copy of urllib3
pool_modules: weakref.WeakSet[Any] = weakref.WeakSet()

#: seconds for each operation (connect, tunnel, handshake) of a replay: a SYN, one retransmission
REPLAY_S = 2.0
#: the same of a move from a silent connection: a SYN, two retransmissions
SILENT_MOVE_S = 5.0
#: and of other moves, in seconds and in round trips; the longer one counts
MOVE_S, MOVE_ROUND_TRIPS = 0.25, 8


@fallback.guarded("fresh_socket_failed")
def open_like(conn: Any, request: Request, timeout: Any, address: Optional[str] = None) -> Any:
    """Open a second socket to the same peer, tunnel and TLS included. Yields while it connects.

    A copy of the connection connects, and the connection's reconnect window applies.

    :param request: the one that the socket is for.
    :param timeout: seconds for each operation (connect, tunnel, handshake), or urllib3's sentinel.
    :param address: the peer's, to which to connect without a DNS look-up.
    :returns: a socket with ``timeout`` set on it; None if no socket can be opened.
    :raises: the caller's deadline.
    """
    if not _may_be_copied(conn):
        return None
    clone = object.__new__(type(conn))  # not copy.copy(): that may be somebody's own
    vars(clone).update(vars(conn), sock=None, **{PINNED: address})
    clone._HTTPConnection__response = None  # the original's, which the copy must not close
    clone.timeout = timeout
    try:
        clone.connect()
        arm(clone.sock, request.state.origin, request.settings)
        info = tcp_info.ask(layers_of(clone.sock))
        if info is not None and info.state != tcp_info.ESTABLISHED:
            return None  # TCP_FASTOPEN_CONNECT: the SYN goes out with the first data
        fresh, clone.sock = clone.sock, None
        return fresh
    except connect_errors(conn) as error:
        # urllib3 turns the caller's deadline into a ConnectTimeoutError
        for link in (error, error.__cause__, error.__context__):
            if link is not None and is_timeout(link) and not is_socket_timeout(link, conn):
                raise_again(link)
        link = None  # its traceback holds this frame
        return None
    finally:
        if clone.sock is not None:  # the connect failed behind it
            clone.sock.close()


def _may_be_copied(conn: Any) -> bool:
    """Tell whether a copy's ``connect()`` does what the connection's did, and no more.

    It is urllib3's, as is what it calls. Another's may acquire what its ``close()`` releases, be
    handed its socket, or note what is true of one socket.
    """
    cls, raw = type(conn), raw_of(conn.sock)
    # urllib3 1.26 itself clears it for a tunnel
    is_opened_by_hand = not conn.auto_open and getattr(conn, "_tunnel_host", None) is None
    has_hooks = not vars(conn).keys().isdisjoint(_HOOKS) or hasattr(cls, "__del__")
    if is_opened_by_hand or has_hooks or _pools_check_connections(cls):
        return False
    if raw is not None and not is_in_this_namespace(raw):
        return False  # in this one another server may have the address
    opens = [getattr(getattr(cls, name), "__globals__", {}) for name in ("connect", "_new_conn")]
    return all(str(names.get("__name__")).endswith(_STOCK) for names in opens)


def address_of(conn: Any) -> Optional[str]:
    """Return the IP address to which a living socket leads; None: the name has to be looked up.

    So it has if the address needs a scope (IPv6, link-local), or the port is not the connection's,
    as with a forwarder: docs/design.rst.
    """
    raw = raw_of(conn.sock)
    try:
        name: Any = None if raw is None else raw.getpeername()  # PySocks's own tells the far end
    except OSError as error:
        if is_a_handlers(error):
            raise
        return None  # it has been reset meanwhile
    is_usable = isinstance(name, tuple) and name[1] == conn.port and not any(name[3:])
    return name[0] if is_usable else None


def _pools_check_connections(cls: Any) -> bool:
    """Tell whether a pool of this urllib3 has a hook of somebody's, as for pinning a certificate.

    A connection does not know its pool, which would call it for each of its new connections.
    """
    modules = [module for module in pool_modules if module.HTTPConnection in cls.__mro__]
    classes = [module.HTTPConnectionPool for module in modules]
    for each in classes:
        classes += each.__subclasses__()
    made = ((each, each.ConnectionCls) for each in classes)  # a class, or a function that makes any
    makers = [each for each, of in made if not isinstance(of, type) or issubclass(cls, of)]
    hooks = [getattr(m, n, None) for m in makers for n in ("_validate_conn", "_prepare_proxy")]
    # by their code: a decorator's wrapper has the __module__ of what it wraps, and wrapt's has all
    stock = [id(vars(module)) for module in modules]
    return not all(type(h) is FunctionType and id(h.__globals__) in stock for h in hooks if h)


def take(request: Request, fresh: Any) -> bool:
    """Give the connection its fresh socket, and only then close the old one.

    :returns: False if another thread has closed the connection, so that the fresh one was closed.
    """
    conn, old = request.conn(), request.state.sock()
    if conn is None or old is None or conn.sock is not old:
        fresh.close()
        return False
    conn.sock = fresh
    request.state.follow(fresh)
    if request.is_replayed:
        drop_unacknowledged(old)
    old.close()
    return True


@fallback.guarded("replay_failed")
def drop_unacknowledged(sock: Any) -> None:
    """Have ``close()`` drop what the peer has not acknowledged (SO_LINGER, socket(7)).

    The kernel would go on to send it for some 100 s (measured), so that a request might arrive
    after the caller's next ones. TCP_USER_TIMEOUT, tcp(7), ends that where a forked child has the
    socket open, too.
    """
    layers, at_once = layers_of(sock), struct.pack("ii", 1, 0)
    info = tcp_info.ask(layers)
    is_empty = info is not None and info.is_whole and info.missing <= 0 and not info.notsent
    if layers is not None and not is_empty:
        RawSocket.setsockopt(layers.raw, _socket.SOL_SOCKET, _socket.SO_LINGER, at_once)
        if layers.is_tcp and USER_TIMEOUT:
            RawSocket.setsockopt(layers.raw, _socket.IPPROTO_TCP, USER_TIMEOUT, 1)  # ms


def _limit_s(conn: Any, longest_s: float, share: float) -> Any:
    """Return the limit of a move that may fail, and then has used up some of the request's time.

    :param share: of the caller's connect timeout, the most that it may be.
    """
    own_s, info = number_of(conn.timeout), tcp_info.ask(layers_of(conn.sock))
    limit_s = longest_s if own_s is None else min(longest_s, own_s * share)
    return shorter(own_s, max(limit_s, 0 if info is None else MOVE_ROUND_TRIPS * info.rtt_us / 1e6))


def move(conn: Any, request: Request, reason: str) -> None:
    """Give a request a fresh socket before a byte of it goes out; on failure it keeps the old one.

    :param reason: its name in the counters; for ``presend_check`` the host is looked up.
    """
    state, knowledge = request.state, request.state.origin.knowledge
    has_ended, is_silent = reason == "presend_check", reason == "probe_unanswered"
    own_limit_s, began = timeout_of(conn.sock), monotonic()
    limit_s, address = shorter(SILENT_MOVE_S, conn.timeout), None
    if not has_ended:
        limits = (SILENT_MOVE_S, 1 / 4) if is_silent else (MOVE_S, 1 / 10)
        limit_s, address = _limit_s(conn, *limits), address_of(conn)
    fresh = open_like(conn, request, limit_s, address)
    spent_s = monotonic() - began
    if fresh is None or (not has_ended and not is_silent and spent_s > limit_s):
        knowledge.stop_moves()
    if fresh is None:
        # at most a tenth of the time is spent with moves that fail
        knowledge.move_again_at = monotonic() + 9 * spent_s
        state.origin.count("moved", "failed")
        return
    fresh.settimeout(own_limit_s)
    if not take(request, fresh):
        return
    state.replaced_silent = is_silent
    request.moved_for, request.is_reused = reason, False
    state.origin.count("moved", reason)
    if reason in stats.HIDDEN:
        state.origin.hidden.tick()
    else:
        knowledge.note_move()
    fallback.log(_logger, logging.DEBUG, "%s: moved for: %s", state.origin.name, reason)
