"""The layers of a pooled connection's socket: the kernel's socket, and TLS upon it.

Kinds are recognised by their classes, without importing the libraries that define them.
"""

from __future__ import annotations

import _socket
import contextlib
import sys
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from stalepool.foreign import is_a_handlers
from stalepool.sockets.verdict import Verdict

RawSocket = _socket.socket
_family, _type = (vars(RawSocket)[name].__get__ for name in ("family", "type"))
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h


class Layers(NamedTuple):
    """A socket taken apart; the fields about TLS are None without TLS. Neither function blocks."""

    raw: RawSocket  # the kernel's
    version: Optional[str] = None  # as "TLSv1.3"
    pending: Optional[Callable[[], int]] = None  # returns the bytes that the TLS layer holds back
    #: reads one byte through TLS; raises an OSError if the session has failed
    judge_by_read: Optional[Callable[[], Verdict]] = None

    @property
    def is_tcp(self) -> bool:
        # as the C class has them: socket.socket makes enums of them, in 0.7 us each
        is_ip = _family(self.raw) in (_socket.AF_INET, _socket.AF_INET6)
        return is_ip and _type(self.raw) == _socket.SOCK_STREAM

    @property
    def has_receive_timeout(self) -> bool:
        """Tell whether SO_RCVTIMEO is set, which ends reads only while the socket is blocking."""
        timeval = RawSocket.getsockopt(self.raw, _socket.SOL_SOCKET, _socket.SO_RCVTIMEO, 16)
        return any(timeval)


def layers_of(sock: Any) -> Optional[Layers]:
    """Take a socket apart; None for a kind that is not known. Never yields, never blocks."""
    # not by isinstance: a mock or a proxy may claim the class, and the kernel refuses it
    if issubclass(type(sock), RawSocket):  # eventlet's GreenSSLSocket, too
        return _of_sslobj(sock, getattr(sock, "_sslobj", None))
    modules = [cls.__module__ for cls in type(sock).__mro__]
    for place, (name, layers_with) in _KINDS.items():
        if any(module.endswith(place) for module in modules):
            inner = layers_of(getattr(sock, name))
            return None if inner is None else layers_with(inner, sock)
    return None


def is_in_this_namespace(raw: RawSocket) -> bool:
    """Tell whether a socket is of this thread's network namespace; True before Linux 5.14."""
    option = _socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8
    try:
        with contextlib.closing(RawSocket(_family(raw), _type(raw))) as here:
            return len({RawSocket.getsockopt(each, *option) for each in (raw, here)}) == 1
    except OSError as error:  # no descriptor is left, say
        if is_a_handlers(error):
            raise
        return True


def timeout_of(sock: Any) -> Optional[float]:
    """Return the socket's timeout in seconds, None without one."""
    # urllib3's wrapper of pyOpenSSL has only settimeout
    ask: Callable[[], Optional[float]] = getattr(sock, "gettimeout", None) or sock.socket.gettimeout
    return ask()


def _of_sslobj(raw: RawSocket, sslobj: Any) -> Optional[Layers]:
    if sslobj is None:
        return Layers(raw)

    def judge_by_read() -> Verdict:
        import _ssl

        try:
            return Verdict.UNREAD if _unblocked(raw, sslobj.read, 1) else Verdict.CLOSED
        except _ssl.SSLWantReadError:
            return Verdict.ALIVE

    is_known = hasattr(sslobj, "pending")
    return Layers(raw, sslobj.version(), sslobj.pending, judge_by_read) if is_known else None


def _with_pyopenssl(inner: Layers, sock: Any) -> Layers:
    raw, connection, errors = inner.raw, sock.connection, sys.modules["OpenSSL.SSL"]

    def judge_by_read() -> Verdict:
        try:
            _unblocked(raw, connection.recv, 1, _socket.MSG_PEEK)
        except errors.WantReadError:
            return Verdict.ALIVE
        except errors.ZeroReturnError:
            return Verdict.CLOSED
        except errors.Error as error:  # unlike the ssl module's, it is no OSError
            raise OSError(str(error)) from error
        return Verdict.UNREAD

    return Layers(raw, connection.get_protocol_version_name(), connection.pending, judge_by_read)


def _with_tls_in_tls(outer: Layers, sock: Any) -> Layers:
    def pending() -> int:  # of both layers, with what the transport has read between them
        held: int = sock.sslobj.pending() + sock.incoming.pending
        return held + (0 if outer.pending is None else outer.pending())

    return outer._replace(pending=pending)


def clear_tls_errors(sock: Any, error: Optional[BaseException]) -> None:
    """Empty OpenSSL's error queue after a failure on a TLS socket: docs/design.rst. Never yields.

    :param sock: a socket, which has ``pending`` if it is a TLS socket; or its layers.
    """
    ssl: Any = sys.modules.get("_ssl")  # in C: somebody may have replaced the classes of ssl
    is_left = isinstance(error, OSError) and ssl is not None and not isinstance(error, ssl.SSLError)
    if is_left and hasattr(type(sock), "pending"):  # an instance of gevent's may raise
        # CPython empties it for each new object
        context = ssl._SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context._wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), True)


def _unblocked(raw: RawSocket, call: Callable[..., Any], *args: Any) -> Any:
    """Call a function while the socket's timeout is 0, so that the TLS layer does not block."""
    timeout = RawSocket.gettimeout(raw)
    RawSocket.settimeout(raw, 0)
    try:
        return call(*args)
    finally:
        RawSocket.settimeout(raw, timeout)


#: where the class of a wrapper is from -> its attribute with the socket inside, and a function of
#: that one's layers and the wrapper, which returns the layers of both
_KINDS: Dict[str, Tuple[str, Callable[[Layers, Any], Optional[Layers]]]] = {
    # in a patched process socketpair() makes one inside another
    "eventlet.greenio.base": ("fd", lambda inner, sock: inner),
    "gevent._socketcommon": (
        "_sock",
        lambda inner, sock: _of_sslobj(inner.raw, getattr(sock, "_sslobj", None)),
    ),
    "urllib3.contrib.pyopenssl": ("socket", _with_pyopenssl),
    "urllib3.util.ssltransport": ("socket", _with_tls_in_tls),
}
