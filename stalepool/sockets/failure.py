"""Test whether a connection has ended, after a failed operation and while its socket is open.

The socket is asked, not the exception: docs/failures.rst.
"""

from __future__ import annotations

import _socket
import errno
import http.client
import select
import sys
from typing import Any, Optional, Tuple, Type

from stalepool.clock import monotonic
from stalepool.foreign import TIMED_OUT, is_a_deadline, is_a_handlers, is_timeout
from stalepool.sockets import liveness, tcp_info
from stalepool.sockets.layers import RawSocket, layers_of
from stalepool.sockets.liveness import ALERT, APPLICATION_DATA, PEER_IS_GONE, POLLRDHUP

#: the kernel gave up on a silent peer: after keepalive, retransmissions or a router's ICMP
_SILENT_ENDS = frozenset((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH))

#: used if the socket cannot be asked: errnos of an ended connection, from tcp(7) and send(2)
_ENDS = _SILENT_ENDS | {errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE}

_EARLY_S = 0.05  #: a poll may time out this many seconds too early
_LONGEST_ALERT_LENGTH = 24  # in TLS 1.3: alert 2, inner type 1, tag 16, and some padding


def socket_errors() -> Tuple[Type[BaseException], ...]:
    """Return the classes that reading or writing a socket raises, for an ``except`` clause."""
    pyopenssl = getattr(sys.modules.get("OpenSSL.SSL"), "Error", None)
    of_pyopenssl = (pyopenssl,) if isinstance(pyopenssl, type) else ()
    return (OSError, http.client.HTTPException, *of_pyopenssl)


def has_ended(sock: Any, error: Optional[BaseException]) -> bool:
    """Tell whether the peer or the kernel has ended the connection, not the caller or our side.

    Never yields, never blocks.

    :param sock: the connection's socket, of any kind, still open.
    :param error: what the operation raised; None if a read found the end (``b""``).
    """
    if error is not None and (
        not isinstance(error, socket_errors()) or is_timeout(error) or is_a_deadline(error)
    ):
        return False
    layers = layers_of(sock)
    events = None if layers is None else liveness.events_now(layers.raw)
    if layers is None or events is None:
        number = getattr(error, "errno", None)
        return error is None or isinstance(error, ConnectionError) or number in _ENDS
    if not events & PEER_IS_GONE:
        if error is not None:
            return False  # TLS alone has failed
        if layers.pending is None and not events:  # with TLS, such an end is a close_notify
            return False  # SO_RCVTIMEO has run out, which also reads as an end
    info = tcp_info.ask(layers)
    if info is None:
        return True
    # still ESTABLISHED, so no FIN or RST has come: this is our own shutdown(SHUT_RD)
    has_stopped_reading = bool(events & POLLRDHUP) and info.state == tcp_info.ESTABLISHED
    return not (info.was_closed_by_us or has_stopped_reading)


def has_run_out(error: Optional[BaseException], since: float, limit_s: Optional[float]) -> bool:
    """Tell whether a timeout is the socket's own, and not the caller's deadline.

    A green thread's timer may raise the same exception, but before the socket's is over. A green
    socket's own timeout is a timer's, too: it is known by its words.

    :param since: monotonic time at which the operation began.
    :param limit_s: the timeout on the socket in seconds, None without one.
    """
    if error is None or limit_s is None or not is_timeout(error):
        return False
    is_the_callers = is_a_deadline(error) and (TIMED_OUT not in str(error) or is_a_handlers(error))
    return monotonic() - since >= limit_s - _EARLY_S and not is_the_callers


def is_silent_end(error: Optional[BaseException]) -> bool:
    """Tell whether the kernel gave up on a peer that had said nothing."""
    return getattr(error, "errno", None) in _SILENT_ENDS


def answer_has_begun(sock: Any) -> bool:
    """Tell whether, after a failed send, unread bytes are an answer, and not a TLS alert.

    In TLS 1.3 an alert is a short record of application data.
    """
    layers = layers_of(sock)
    if layers is None:
        return False
    if layers.pending is not None and layers.pending():
        return True
    try:
        events = liveness.events_now(layers.raw) or 0
        seen = RawSocket.recv(layers.raw, 5, _socket.MSG_PEEK) if events & select.POLLIN else b""
    except OSError as error:
        if is_a_handlers(error):
            raise
        return False
    if layers.pending is None:
        return bool(seen)
    is_short = len(seen) == 5 and int.from_bytes(seen[3:], "big") <= _LONGEST_ALERT_LENGTH
    return bool(seen) and not (seen[0] == ALERT or (seen[0] == APPLICATION_DATA and is_short))
