"""The kinds of socket a urllib3 pool can hold, and how a connected one of each is made.

Everything heavy is imported inside the functions: a green library patches its process first.
"""

from __future__ import annotations

import _socket
import threading
import warnings
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

VERSIONS = ("TLSv1.2", "TLSv1.3")


class Kind(NamedTuple):
    """One kind of client socket.

    ``wrap``: makes it of a connected plain one and the client's TLS settings, None if it is plain.
    ``green``: the library that patches the process, None without. ``needs``: what it is made of.
    ``depth``: how many TLS layers there are. ``shuts_down``: its ``shutdown()`` is the kernel's.
    """

    wrap: Optional[Callable[[Any, Any], Any]]
    green: Optional[str] = None
    needs: Tuple[str, ...] = ()
    depth: int = 1
    shuts_down: bool = True

    @property
    def versions(self) -> Tuple[Optional[str], ...]:
        return (None,) if self.wrap is None else VERSIONS


def _with_ssl(sock: Any, settings: Any) -> Any:
    client = settings.wrap_client(sock)
    client.do_handshake()
    return client


def _with_ssl_transport(sock: Any, settings: Any) -> Any:
    from urllib3.util.ssltransport import SSLTransport

    outer = _with_ssl(sock, settings)
    return SSLTransport(outer, settings.client_context, server_hostname="localhost")


def _with_pyopenssl(sock: Any, settings: Any) -> Any:
    import ssl

    with warnings.catch_warnings():  # urllib3 1.26 calls the module deprecated
        warnings.simplefilter("ignore")
        from urllib3.contrib.pyopenssl import PyOpenSSLContext
    context = PyOpenSSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=settings.ca_path)
    return context.wrap_socket(sock, server_hostname="localhost")


KINDS: Dict[str, Kind] = {
    "socket": Kind(None),
    "eventlet socket": Kind(None, "eventlet", ("eventlet",)),
    "gevent socket": Kind(None, "gevent", ("gevent",)),
    "ssl": Kind(_with_ssl),
    "eventlet ssl": Kind(_with_ssl, "eventlet", ("eventlet",)),
    "gevent ssl": Kind(_with_ssl, "gevent", ("gevent",)),
    "SSLTransport": Kind(_with_ssl_transport, needs=("urllib3",), depth=2, shuts_down=False),
    "pyOpenSSL": Kind(_with_pyopenssl, needs=("urllib3", "OpenSSL"), shuts_down=False),
}


def patch_for(kind: Kind) -> None:
    """Make this process green, where the kind is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eventlet's opinion of its own future
        if kind.green == "eventlet":
            import eventlet

            eventlet.monkey_patch()
        elif kind.green == "gevent":
            import gevent.monkey

            gevent.monkey.patch_all()


def raw_of(sock: Any) -> Any:
    """The kernel's socket inside one of any kind."""
    while not isinstance(sock, _socket.socket):
        for name in ("fd", "_sock", "socket"):  # eventlet's, gevent's, urllib3's wrappers
            inner = getattr(sock, name, None)
            if inner is not None:
                break
        sock = inner
    return sock


def connect(kind: Kind, version: Optional[str]) -> Tuple[Any, Peer]:
    """A connection of this kind over loopback, after the handshake: the client and its peer."""
    from stalepool_testing import TLS, healthy

    pair = healthy()
    pair.client.settimeout(5)
    pair.peer.settimeout(5)
    # what no one reads soon fills them
    pair.client.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 1 << 16)
    pair.peer.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, 1 << 16)
    if kind.wrap is None:
        return pair.client, Peer(pair.peer)
    settings = TLS(version or "", num_tickets=2)
    peer = Peer(pair.peer, *[settings.server_context] * kind.depth)
    shaking = threading.Thread(target=peer.do_handshakes)
    shaking.start()
    client = kind.wrap(pair.client, settings)
    shaking.join()
    return client, peer


class Peer:
    """The server's end: a plain socket below any number of TLS layers, each ours to misuse."""

    def __init__(self, sock: Any, *contexts: Any) -> None:
        self.sock = sock
        self.is_gone = False
        self._layers = [_Plain(sock)]
        for context in contexts:
            self._layers.append(_Tls(self._layers[-1], context))

    @property
    def top(self) -> Any:
        """The layer that carries HTTP."""
        return self._layers[-1]

    def do_handshakes(self) -> None:
        for layer in self._layers[1:]:
            layer.do_handshake()

    def close(self) -> None:
        """Send a FIN, and an RST to whatever comes."""
        self.is_gone = True
        self.sock.close()

    def reset(self) -> None:
        from stalepool_testing.kernel import reset

        self.is_gone = True
        reset(self.sock)


class _Plain:
    def __init__(self, sock: Any) -> None:
        self.send = sock.sendall
        self._recv = sock.recv

    def receive(self) -> bytes:
        return self._recv(65536)


#: a record of application data that no key fits
_BROKEN = b"\x17\x03\x03\x00\x20" + b"\0" * 32


class _Tls:
    """A server's TLS, in memory; what it has to say goes through the layer below."""

    def __init__(self, below: Any, context: Any) -> None:
        import ssl

        self._errors = ssl
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def do_handshake(self) -> None:
        self._through(self._tls.do_handshake)

    def send(self, data: bytes) -> None:
        self._through(self._tls.write, data)

    def receive(self) -> bytes:
        return self._through(self._tls.read, 65536)

    def say_goodbye(self) -> None:
        """Send a close_notify, and wait for none."""
        try:
            self._tls.unwrap()
        except self._errors.SSLWantReadError:
            pass
        self._below.send(self._outgoing.read())

    def send_fatal_alert(self) -> None:
        """As if the client had sent garbage: OpenSSL gives up with bad_record_mac."""
        self._incoming.write(_BROKEN)
        try:
            self._tls.read(1)
        except self._errors.SSLError:
            pass
        self._below.send(self._outgoing.read())

    def send_broken_record(self) -> None:
        self._below.send(_BROKEN)

    def _through(self, call: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                result, wants_more = call(*args), False
            except self._errors.SSLWantReadError:
                wants_more = True
            if self._outgoing.pending:
                self._below.send(self._outgoing.read())
            if not wants_more:
                return result
            self._incoming.write(self._below.receive())
