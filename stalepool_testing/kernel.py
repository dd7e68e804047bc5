"""Ask the kernel about a socket, below any monkey patch.

Everything here waits for *events*. If an event cannot be polled for (all bytes have arrived, the
send queue is empty), it looks again every half millisecond.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import select
import socket
import struct
import sys
import termios
import time
from typing import Any, Callable, Mapping

if "gevent.monkey" in sys.modules:
    # gevent's own poll does not know POLLRDHUP
    _poll = sys.modules["gevent.monkey"].get_original("select", "poll")
else:
    # eventlet deletes select.poll and keeps the module it found under another name
    _poll = getattr(select, "poll", None) or sys.modules["__original_module_select"].poll

POLLIN = 0x001
POLLERR = 0x008
POLLHUP = 0x010
POLLRDHUP = 0x2000 if sys.platform.startswith("linux") else 0


class Unavailable(OSError):
    """This machine cannot make the state that was asked for; the message says why."""


def is_green() -> bool:
    """Tell whether eventlet or gevent has patched ``select``, so that a wait must yield."""
    return getattr(select, "poll", None) is not _poll


def require_green_sockets() -> None:
    """Raise ``RuntimeError`` if a process that is monkey patched has native sockets again.

    There a server and its client would wait for each other for ever, and no timeout would end it.
    """
    eventlet, gevent = map(sys.modules.get, ("eventlet.patcher", "gevent.monkey"))
    is_patched = getattr(eventlet, "already_patched", {}).get("socket") or (
        gevent is not None and gevent.is_module_patched("socket")
    )
    if is_patched and issubclass(socket.socket, _socket.socket):
        raise RuntimeError(
            "sockets are native again after monkey patching, which pytest-socket does: "
            "use -p no:socket"
        )


def wait(descriptors: Mapping[int, int], timeout_s: float | None = None) -> dict[int, int]:
    """Wait until something happens on one of several descriptors.

    Blocks a native thread; a green one sleeps and looks again, so that the others run.

    :param descriptors: from file descriptor to the poll events of interest.
    :param timeout_s: ``None`` waits for ever, 0 does not wait.
    :returns: from file descriptor to the events that came; empty after a timeout.
    """
    poller = _poll()
    for descriptor, events in descriptors.items():
        poller.register(descriptor, events)
    if not is_green():
        return dict(poller.poll(None if timeout_s is None else timeout_s * 1000))
    deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    pause_s = 0.0
    while True:
        found = dict(poller.poll(0))
        if found or time.monotonic() >= deadline:
            return found
        time.sleep(pause_s)
        pause_s = min(pause_s + 0.0002, 0.005)


def events_on(sock: socket.socket) -> int:
    """Return the poll events on a socket now, without waiting and without reading."""
    wanted = POLLIN | POLLRDHUP
    return wait({sock.fileno(): wanted}, 0).get(sock.fileno(), 0)


def wait_readable(sock: socket.socket, timeout_s: float = 5.0, events: int = POLLIN) -> int:
    """Wait until this socket is readable: bytes, a FIN or an RST have arrived.

    :param sock: any socket, plain, green or TLS; nothing is read from it.
    :param timeout_s: how long to wait.
    :param events: poll events of interest; POLLERR and POLLHUP always are.
    :returns: the poll events that came.
    :raises TimeoutError: nothing came in time.
    """
    found = wait({sock.fileno(): events}, timeout_s).get(sock.fileno(), 0)
    if not found:
        raise TimeoutError(f"nothing reached {sock!r} within {timeout_s} s")
    return found


def wait_until(check: Callable[[], bool], what: str, timeout_s: float = 5.0) -> None:
    """Look every half millisecond until ``check()`` holds.

    :raises TimeoutError: it does not hold in time; the text names ``what``.
    """
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.0005)


def unread_bytes(sock: socket.socket) -> int:
    """Return how many received bytes lie unread in the kernel (FIONREAD)."""
    return _ask(sock, termios.FIONREAD)


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Return how many bytes are written and not yet acknowledged (SIOCOUTQ; Linux)."""
    return _ask(sock, termios.TIOCOUTQ)


def drain(sock: socket.socket) -> None:
    """Read the unread bytes and ignore them, below TLS; never blocks."""
    while unread_bytes(sock):
        os.read(sock.fileno(), 65536)


def shutdown(sock: socket.socket, how: int) -> None:
    """Shut down below TLS, so that the TLS layer can still read.

    :param how: ``socket.SHUT_WR`` sends a FIN and keeps the receiving side.
    """
    # SSLSocket.shutdown() would forget the TLS layer
    if isinstance(sock, _socket.socket):
        _socket.socket.shutdown(sock, how)
    else:
        sock.shutdown(how)


def reset(sock: socket.socket) -> None:
    """Close a TCP socket with an RST instead of a FIN (SO_LINGER 0)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _ask(sock: socket.socket, request: int) -> int:
    answer: Any = fcntl.ioctl(sock.fileno(), request, b"\0" * 4)
    return int(struct.unpack("i", answer)[0])
