"""Opening a socket: a refused connect may be tried again; keepalive is armed.

Replaces ``HTTPConnection._new_conn``.

The reconnect window: for a moment, a refused connect to a peer that has answered is tried again. An
outage has one window, and no thread waits longer than one window in 30 s: otherwise each of a
caller's own retries would wait again.
"""

from __future__ import annotations

import _thread
import errno
import random
import sys
from typing import Any, Callable, Dict, Tuple, Type

from stalepool import fallback, runtime, stats
from stalepool.clock import monotonic, number_of, shorter
from stalepool.connection.origins import is_http1, origin_of, peer_of
from stalepool.connection.state import note_opened
from stalepool.foreign import drop_frames, raise_again
from stalepool.settings import Settings
from stalepool.sockets import keepalive
from stalepool.sockets.failure import socket_errors
from stalepool.sockets.layers import layers_of

#: attribute of a connection's clone: the address to connect to, once, without a DNS look-up
PINNED = "_stalepool_pinned"
_REFUSALS = frozenset((errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED))

PAUSES_S = 0.1, 0.3  #: between two tries; a random time, so that callers do not try in step
SHORTEST_PATIENCE_S = 1.0  #: a caller whose connect timeout is shorter does not wait
SHORTEST_TRY_S = 0.01  #: timeout of the last try, at the end of the window
BUDGET_PERIOD_S = 30.0  #: a thread waits for one window in this time, all origins together

#: in the attributes of a thread or green thread: (when its period began, seconds waited in it)
WAITED = "_stalepool_waited"
_of_thread = _thread._local()


def make_new_conn(original: Callable[[Any], Callable[[], Any]], module: Any) -> Callable[..., Any]:
    """Return the function that replaces urllib3's; ``original`` binds that to a connection."""

    def _new_conn(self: Any) -> Any:
        settings, stock = runtime.current, original(self)
        if settings is None or settings.is_audit or not is_http1(self):
            return stock()
        address = getattr(self, PINNED, None)
        if address is None:
            sock = _open_socket(stock, self, settings, module)
        else:  # everything but the connect still sees the name
            name, self._dns_host = self._dns_host, address
            sock = stock()  # if that fails, the clone is of no more use
            self._dns_host = name
        note_opened(sock)
        return sock

    return _new_conn


def _open_socket(stock: Callable[[], Any], conn: Any, settings: Settings, module: Any) -> Any:
    """Return the socket that ``stock()`` opens, at once or while the peer's window is open.

    :raises: what it raised first, or an error of a later try that is no refusal.
    """
    try:
        return stock()
    except connect_errors(conn) as error:
        wait_s = _enter_window(conn, error, settings)
        if not wait_s:
            raise
        first: BaseException = error
    try:  # outside the clause, so that no later error has it as context
        sock = _try_again(stock, conn, wait_s, module)
        if sock is None:
            raise_again(first)
        drop_frames(first)
        return sock
    finally:
        del first  # its traceback holds this frame


@fallback.guarded("keepalive_failed")
def arm(sock: Any, origin: stats.Origin, settings: Settings) -> None:
    """Arm keepalive, after ``connect()``: that may set the application's own options."""
    layers = layers_of(sock)
    # where probes are swallowed, keepalive would end living connections
    if layers and not origin.knowledge.swallows_probes and keepalive.apply_policy(layers, settings):
        origin.armed.tick()


def connect_errors(conn: Any) -> Tuple[Type[BaseException], ...]:
    """Return the exception classes that opening a connection raises, for an ``except`` clause.

    Those of the connection's copy of urllib3 are found in the globals of ``connect()``, since the
    copy's modules need not be in ``sys.modules``.
    """
    for cls in type(conn).__mro__:
        names = getattr(vars(cls).get("connect"), "__globals__", {})
        new_connection_error = names.get("NewConnectionError")
        if new_connection_error is not None:
            found = (names.get("CertificateError"), *new_connection_error.__mro__)
            wanted = ("CertificateError", "HTTPError")  # the first is a ValueError
            return (*socket_errors(), *(c for c in found if getattr(c, "__name__", "") in wanted))
    return socket_errors()


def _is_refusal(error: BaseException) -> bool:
    """Tell whether a connect was refused or reset.

    urllib3 2.x keeps the kernel's error as cause, 1.26 only as context; PySocks as an attribute.
    """
    made_from = error.__cause__ or error.__context__
    is_of_pysocks = type(made_from).__name__ == "ProxyConnectionError"  # not in its negotiation
    links = (error, made_from, getattr(made_from, "socket_err", None) if is_of_pysocks else None)
    return any(getattr(link, "errno", None) in _REFUSALS for link in links)


@fallback.guarded("connect_failed", default=0.0)
def _enter_window(conn: Any, error: Any, settings: Settings) -> float:
    """Open the peer's window if need be; return the seconds in it for this caller, 0 for none."""
    knowledge = stats.origin(peer_of(conn)).knowledge
    limit_s = number_of(conn.timeout)
    if not knowledge.has_answered or not _is_refusal(error) or not settings.reconnect_window_s:
        return 0.0
    ends = knowledge.window_until  # read once: another thread's answer closes the window
    if ends is None:
        ends = knowledge.window_until = monotonic() + settings.reconnect_window_s
        stats.origin(origin_of(conn)).count("reconnects", "windows")
    if limit_s is not None and limit_s < SHORTEST_PATIENCE_S:
        return 0.0
    budget_s = settings.reconnect_window_s - _waited()[1]  # what this thread may still wait
    return max(0.0, min(ends - monotonic(), budget_s))


def _try_again(stock: Callable[[], Any], conn: Any, wait_s: float, module: Any) -> Any:
    """Return a socket, or None if the window closed first. Yields while it sleeps.

    :raises: an error of a later try that is no refusal, if it comes within the window.
    """
    timeout, began, outcome = conn.timeout, monotonic(), "failed"
    limit_s = number_of(timeout)
    ends = began + shorter(wait_s, limit_s)
    try:
        while (left_s := ends - monotonic()) > 0:
            paused_at = monotonic()
            pause_s = min(left_s, random.uniform(*PAUSES_S))  # noqa: S311  # not a secret
            pause(module, pause_s)
            if monotonic() - paused_at < pause_s / 2:
                break  # a mocked sleep
            conn.timeout = max(SHORTEST_TRY_S, ends - monotonic())
            try:
                sock = stock()
            except connect_errors(conn) as error:
                if monotonic() < ends and not _is_refusal(error):
                    raise
                failed = error
            else:
                # the window does not limit the TLS handshake and the sending of the request
                sock.settimeout(limit_s)
                outcome = "ok"
                return sock
            drop_frames(failed)
        return None
    finally:
        conn.timeout = timeout
        origin, spent_s = origin_of(conn), monotonic() - began
        period_began, waited_s = _waited()
        attributes_of_thread()[WAITED] = period_began, waited_s + spent_s
        stats.origin(origin).count("reconnects", outcome)
        level = "INFO" if outcome == "ok" else "DEBUG"
        text = "%s: a refused connect was tried again for %.2f s: %s"
        fallback.log("connect", level, text, origin, spent_s, outcome)


def _waited() -> Tuple[float, float]:
    """Return when this thread's period began, and for how many seconds it has waited in it."""
    now = monotonic()
    began, spent_s = attributes_of_thread().get(WAITED, (now, 0.0))
    return (began, spent_s) if now - began < BUDGET_PERIOD_S else (now, 0.0)


def attributes_of_thread() -> Dict[str, Any]:
    """Return the attributes of the running greenlet or thread. asyncio would copy a contextvar."""
    greenlet = sys.modules.get("greenlet")
    return vars(_of_thread if greenlet is None else greenlet.getcurrent())


def pause(module: Any, seconds: float) -> None:
    """Sleep with the ``time`` of one copy of urllib3: this yields exactly where its sockets do.

    It is found in the globals of a method of ``Retry`` that tests do not mock, since the copy's
    modules need not be in ``sys.modules``. If it is not found, nobody sleeps.
    """
    retry = getattr(module, "Retry", None)
    if retry is None:  # contrib.socks
        retry = module.HTTPConnectionPool.urlopen.__globals__.get("Retry")
    names = getattr(getattr(retry, "get_backoff_time", None), "__globals__", {})
    is_its_own = str(names.get("__name__")).endswith("urllib3.util.retry")  # not a decorator's
    if is_its_own and "time" in names:
        names["time"].sleep(seconds)
