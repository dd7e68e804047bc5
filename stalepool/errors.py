"""What an error says of a try: that its connection ended, or that it came from elsewhere."""

from __future__ import annotations

import errno
import sys
from typing import Callable, Optional, Tuple

#: the connection's own end, as the kernel names it: RST, a write after it, a keepalive or user
#: timeout (tcp(7)), an unreachable peer. The caller's read timeout has no errno
_CONNECTION_ERRNOS = frozenset(
    (
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    )
)

#: a FIN without close_notify; a system call that failed, its number lost; a read after the end
_ENDS_IN_OPENSSLS_WORDS = ("unexpected eof", "system library", "[]")

#: whose exceptions tell of a try alone; by name: a green copy of a library has classes of its own
_OF_HTTP = ("urllib3.exceptions", "http.client", "OpenSSL.SSL")


def is_the_connections_end(error: BaseException) -> bool:
    """Whether it tells of the connection, and not of the caller's patience or of anything else."""
    return (
        getattr(error, "errno", None) in _CONNECTION_ERRNOS
        or _is_eof(error)
        or _is_an_end_to_pyopenssl(error)
    )


def _is_eof(error: BaseException) -> bool:
    """``http.client.RemoteDisconnected``, and TLS's word for a FIN without close_notify."""
    return type(error).__name__ in ("RemoteDisconnected", "SSLEOFError", "SSLZeroReturnError")


def _is_an_end_to_pyopenssl(error: BaseException) -> bool:
    """Measured with pyOpenSSL 26.4. Its errors are no OSErrors, and are all that there is to go by:
    urllib3 1.26 loses the number, and an ``ssl.SSLError`` made from one has none.
    """
    cls = type(error)
    if cls.__module__ != "OpenSSL.SSL" or not error.args:
        return False
    if cls.__name__ == "SysCallError":
        return error.args[0] in _CONNECTION_ERRNOS or error.args[0] == -1  # EOF: no number
    # exactly this class: a WantReadError lies behind the caller's own timeout
    return cls.__name__ == "Error" and any(
        word in str(error.args[0]) for word in _ENDS_IN_OPENSSLS_WORDS
    )


def is_of_the_try(error: BaseException) -> bool:
    """Whether an error tells how one try went, so that another try's may take its place.

    Anything else came from outside: ``eventlet.Timeout`` and what it was told to raise, a signal
    handler's exception, ``KeyboardInterrupt``. That is the caller's, whenever it comes. An OSError
    or a ValueError that a timer raises cannot be told from the try's own.
    """
    return isinstance(error, (OSError, ValueError)) or any(
        cls.__module__.endswith(_OF_HTTP) for cls in type(error).__mro__
    )


def _being_handled() -> Optional[BaseException]:
    return sys.exc_info()[1]


#: the exception the caller is handling, if any. Every request asks: ``sys.exception()``, new in
#: CPython 3.11, takes a third of the time
being_handled: Callable[[], Optional[BaseException]] = getattr(sys, "exception", _being_handled)


def chain(
    error: BaseException, handled: Optional[BaseException] = None
) -> Tuple[BaseException, ...]:
    """The error and what urllib3 made it from: 2.x keeps that as cause, 1.26 only as context.

    :param handled: what the caller was handling when it sent the request. Python makes it the
        context of whatever is raised meanwhile, and it may be another connection's end.
    """
    found: Tuple[BaseException, ...] = ()
    link: Optional[BaseException] = error
    while link is not None and link is not handled and link not in found:
        found += (link,)
        link = link.__cause__ or link.__context__
    return found
