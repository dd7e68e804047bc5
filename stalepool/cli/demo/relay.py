"""A TCP relay: bytes go through it, nothing else. One thread, no framework.

It is the load balancer where haproxy is not installed, and the ground on
which the faulty network is built.
"""

from __future__ import annotations

import selectors
import socket
from typing import Callable, Set, Union

from stalepool.cli.demo.processes import Address

_CHUNK = 65536


class Link:
    """A client's connection and the connection it is carried on by."""

    def __init__(self, client: socket.socket, upstream: socket.socket) -> None:
        self.client = client
        self.upstream = upstream


class Relay:
    """Relays connections from any number of listening sockets."""

    def __init__(self) -> None:
        self.links: Set[Link] = set()
        self._selector = selectors.DefaultSelector()

    def serve(self, listener: socket.socket, upstream: Address) -> None:
        """Carry whoever connects to ``listener`` on to ``upstream``."""
        self.watch(listener, lambda: self._accept(listener, upstream))

    def watch(self, source: Union[socket.socket, int], act: Callable[[], None]) -> None:
        """Call ``act`` whenever there is something to read."""
        self._selector.register(source, selectors.EVENT_READ, act)

    def run(self) -> None:
        """Relay for ever."""
        while True:
            for key, _ in self._selector.select():
                key.data()

    def drop(self, link: Link) -> None:
        """Close both sides of a link."""
        self.links.discard(link)
        for sock in (link.client, link.upstream):
            self._selector.unregister(sock)
            sock.close()

    def request_arrives(self, link: Link, data: bytes) -> None:
        """What to do with bytes from a client: carry them on."""
        self._send(link, link.upstream, data)

    def _accept(self, listener: socket.socket, upstream: Address) -> None:
        client, _ = listener.accept()
        try:
            link = Link(client, socket.create_connection(upstream))
        except OSError:
            client.close()
            return
        for sock in (link.client, link.upstream):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.links.add(link)
        self.watch(link.client, lambda: self._from_client(link))
        self.watch(link.upstream, lambda: self._from_upstream(link))

    def _from_client(self, link: Link) -> None:
        data = self._receive(link, link.client)
        if data:
            self.request_arrives(link, data)

    def _from_upstream(self, link: Link) -> None:
        data = self._receive(link, link.upstream)
        if data:
            self._send(link, link.client, data)

    def _send(self, link: Link, sock: socket.socket, data: bytes) -> None:
        try:
            sock.sendall(data)
        except OSError:
            self.drop(link)

    def _receive(self, link: Link, sock: socket.socket) -> bytes:
        """What lies in a socket of a link; at its end, or after an error, the link is dropped."""
        if link not in self.links:  # dropped by an event of the same round
            return b""
        try:
            data = sock.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            self.drop(link)
        return data
