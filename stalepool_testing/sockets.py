"""Real sockets, in every state in which a pooled connection can be found.

Each function returns a :class:`Pair` once the state *has arrived* at the client, as its kernel sees
it. The functions start no threads, and are fast, except with TLS (a few ms).
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, Callable, Iterator, TypeVar

from stalepool_testing import blackhole, kernel
from stalepool_testing.kernel import POLLERR, POLLHUP, POLLIN, POLLRDHUP, Unavailable

REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
P = TypeVar("P", bound="Pair")


class Pair:
    """Two ends of one connection: ``client``, the end under test, and ``peer``.

    Unpacks as ``client, peer = pair``; leaving the ``with`` block closes both ends.
    """

    def __init__(
        self,
        client: socket.socket,
        peer: socket.socket,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.client = client
        self.peer = peer
        self._on_close = on_close

    def __iter__(self) -> Iterator[socket.socket]:
        return iter((self.client, self.peer))

    def __enter__(self: P) -> P:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} client={self.client!r} peer={self.peer!r}>"

    def close(self) -> None:
        """Close both ends; may be called twice."""
        on_close, self._on_close = self._on_close, None
        if on_close:
            on_close()
        self.client.close()
        self.peer.close()


def healthy(*, family: int = socket.AF_INET) -> Pair:
    """An idle connection: open, and silent on both ends.

    :param family: ``AF_INET`` or ``AF_INET6`` for TCP over loopback, or ``AF_UNIX``.
    :raises Unavailable: this machine has no IPv6, as some containers.
    """
    if family == socket.AF_UNIX:
        return Pair(*socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
    address = (loopback(family), 0)
    with errors_of_binding(address, family):
        listener = socket.create_server(address, family=family)
    with listener, contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        client.connect(listener.getsockname())
        peer, _ = listener.accept()
        stack.pop_all()
    for end in (client, peer):
        end.settimeout(None)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Pair(client, peer)


def eof(*, family: int = socket.AF_INET) -> Pair:
    """The peer has closed: its FIN has arrived, and it answers further data with an RST."""
    pair = healthy(family=family)
    pair.peer.close()
    kernel.wait_readable(pair.client, events=POLLRDHUP or POLLIN)
    return pair


def half_closed(*, family: int = socket.AF_INET) -> Pair:
    """The peer has shut down its sending side: the same FIN, but it still reads.

    Before it sends something, the client cannot tell this from :func:`eof`.
    """
    pair = healthy(family=family)
    kernel.shutdown(pair.peer, socket.SHUT_WR)
    kernel.wait_readable(pair.client, events=POLLRDHUP or POLLIN)
    return pair


def reset(*, family: int = socket.AF_INET) -> Pair:
    """The peer has reset the connection: an RST has arrived, the next read raises ECONNRESET.

    AF_UNIX has no RST, but the same error: the peer has closed with a byte unread.
    """
    pair = healthy(family=family)
    if family == socket.AF_UNIX:
        pair.client.sendall(b"\0")
    kernel.reset(pair.peer)
    kernel.wait_readable(pair.client, events=0)
    events = kernel.events_on(pair.client)
    assert events & POLLHUP and events & POLLERR, events
    return pair


def unread(data: bytes = REQUEST_TIMEOUT, *, family: int = socket.AF_INET) -> Pair:
    """The peer has sent something that answers no request, and it lies unread in the kernel.

    :param data: what was sent; by default a ``408``, which servers send before they close.
    """
    pair = healthy(family=family)
    pair.peer.sendall(data)
    await_delivery(pair)
    return pair


def black_hole(*, family: int = socket.AF_INET) -> Pair:
    """The peer drops all that comes, unacknowledged. It looks like a healthy connection.

    :raises Unavailable: the kernel does not permit it (:mod:`~stalepool_testing.blackhole`).
    """
    pair = healthy(family=family)
    try:
        blackhole.swallow(pair.peer)
    except OSError:
        pair.close()
        raise

    def let_go() -> None:
        # otherwise both kernels retransmit their FINs for a minute
        if pair.peer.fileno() >= 0:
            kernel.reset(pair.peer)

    return Pair(pair.client, pair.peer, let_go)


def await_delivery(pair: Pair) -> None:
    """Wait until all that the peer has sent lies in the client's kernel.

    :raises TimeoutError: it does not within 5 s.
    """
    kernel.wait_readable(pair.client)
    if pair.peer.family != socket.AF_UNIX:  # which delivers while it sends
        kernel.wait_until(
            lambda: kernel.unacknowledged_bytes(pair.peer) == 0, f"delivery to {pair.client!r}"
        )


def loopback(family: int) -> str:
    """Return this machine's own address in a family.

    :raises ValueError: it has none.
    """
    addresses = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
    if family not in addresses:
        raise ValueError(f"family takes AF_INET, AF_INET6 or AF_UNIX, got {family!r}")
    return addresses[socket.AddressFamily(family)]


@contextlib.contextmanager
def errors_of_binding(address: Any, family: int) -> Iterator[None]:
    """Have an error of the block, which binds a socket, name the address and its family.

    :raises Unavailable: the address is ``::1``, and this machine has no IPv6.
    """
    try:
        yield
    except OSError as error:
        if address[0] == "::1" and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise Unavailable("this machine has no IPv6 loopback (::1)") from error
        name = socket.AddressFamily(family).name
        error.strerror = f"cannot bind to {address} in {name}: {error.strerror}"
        raise
