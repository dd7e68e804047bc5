"""A small real HTTP proxy: CONNECT tunnels, and plain requests with an absolute URI."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from stalepool_testing.channel import Channel
from stalepool_testing.listener import Listener
from stalepool_testing.messages import Request, answer_bytes
from stalepool_testing.tls import TLS
from stalepool_testing.wire import IO_TIMEOUT_S

# RFC 9110 section 7.6.1: not for the next hop
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "proxy-authorization", "transfer-encoding")
)


class ConnectProxy(Listener):
    """A proxy on loopback, for tests of tunnels, of TLS in TLS and of ``http_proxy``.

    ``CONNECT host:port`` makes a tunnel: bytes go both ways, the server's FIN or RST is passed on
    to the client, and the client's FIN or RST ends the tunnel. Any other method needs an absolute
    ``http://`` URI, and is forwarded on a connection of its own; of repeated headers one value is
    kept. A server that cannot be reached gives 502. Starts at once; a context manager.

    :param tls: the proxy speaks TLS to its clients.
    :param family: ``AF_INET`` or ``AF_INET6``.
    :param host: the address to listen on; ``None`` is the family's loopback.
    :ivar tunnels: the ``host:port`` of each tunnel made, in order.
    :ivar forwarded: each :class:`.Request` forwarded, in order.
    """

    def __init__(
        self, *, tls: TLS | None = None, family: int = socket.AF_INET, host: str | None = None
    ) -> None:
        self.tunnels: list[str] = []
        self.forwarded: list[Request] = []
        self._tunnelling: list[Channel] = []
        super().__init__(tls, family, host)

    def cut(self, reset: bool = False) -> int:
        """Close all open tunnels on the client's side, as a proxy that restarts does.

        Returns when the FIN or RST of each has been sent.

        :param reset: send an RST instead of the FIN.
        :returns: how many there were.
        """
        channels = [channel for channel in self._tunnelling if channel.is_open]
        for channel in channels:
            channel.tell(channel.reset if reset else channel.close)
        self.journal.wait(
            lambda _: all(channel.ended for channel in channels), what="end of all tunnels"
        )
        return len(channels)

    def _serve(self, channel: Channel) -> None:
        while channel.is_open:
            channel.wait_request()
            request = channel.read_head()
            if request.method == "CONNECT":
                self._tunnel(channel, request)
                return
            self._forward(channel, request)
            if request.wants_close:
                channel.close(close_notify=True)

    def _tunnel(self, channel: Channel, request: Request) -> None:
        host, _, port = request.path.rpartition(":")
        try:
            upstream = socket.create_connection((host.strip("[]"), int(port)), IO_TIMEOUT_S)
        except (OSError, ValueError) as error:
            channel.send(answer_bytes(502, str(error).encode()))
            return
        with upstream:
            self.tunnels.append(request.path)
            self._tunnelling.append(channel)
            channel.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            try:
                relay(channel, upstream)
            except ConnectionError:
                channel.reset()

    def _forward(self, channel: Channel, request: Request) -> None:
        request.body = channel.read_body(request)
        self.forwarded.append(request)
        parts = urlsplit(request.path)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = {k: v for k, v in request.headers.items() if k not in _HOP_BY_HOP}
        upstream = http.client.HTTPConnection(parts.hostname or "", parts.port, IO_TIMEOUT_S)
        try:
            upstream.request(request.method, target, request.body or None, headers)
            response = upstream.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            channel.send(answer_bytes(502, repr(error).encode(), request=request))
            return
        finally:
            upstream.close()
        fields = {
            name: value
            for name, value in response.getheaders()
            if name.lower() not in _HOP_BY_HOP
            and (name.lower() != "content-length" or request.method == "HEAD")
        }
        channel.send(answer_bytes(response.status, body, fields, request))


def relay(channel: Channel, upstream: socket.socket) -> None:
    """Hand bytes on, both ways, until the client ends the connection.

    :raises ConnectionError: the server has reset it.
    """
    server_has_ended = False
    while True:
        if channel.wait_either(None if server_has_ended else upstream):
            data = upstream.recv(65536)
            if data:
                channel.send(data)
            else:
                server_has_ended = True
                channel.half_close()
        sent = channel.take_all()
        if sent:
            upstream.sendall(sent)
