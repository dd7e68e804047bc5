"""Every kind of socket a urllib3 pool can hold, each brought into every state it can be found in.

``KINDS`` and ``STATES`` are tables: a kind says how a connected :class:`Pair` of it is made, a
state what its peer then does, and the verdict on the client's end.
"""

import _socket
import contextlib
import socket
import ssl
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Callable, NamedTuple, Optional

from urllib3.util.ssltransport import SSLTransport

import stalepool_testing as testing
from stalepool.sockets import liveness
from stalepool.sockets.layers import RawSocket, layers_of
from stalepool.sockets.verdict import Verdict
from stalepool_testing import TLS, Pair, kernel, swallow, tls_sockets
from stalepool_testing.sockets import REQUEST_TIMEOUT, await_delivery
from stalepool_testing.tls_sockets import ANSWER


def peek(sock, may_consume=True):
    """Classify an idle socket as the full check does; UNKNOWN where it cannot be asked."""
    layers = layers_of(sock)
    poll = None if layers is None else liveness.poller(layers.raw)
    if layers is None or poll is None:
        return Verdict.UNKNOWN
    return liveness.examine(layers, poll, may_consume)


class Kind(NamedTuple):
    """One kind of client socket.

    ``connect``: from the settings of its TLS, None without, to a connected pair of it.
    ``tls``: the TLS version; ``is_tcp``: False for AF_UNIX.
    """

    connect: Callable[[Any], Pair]
    tls: Optional[str] = None
    is_tcp: bool = True

    def make(self, tickets=0):
        """A connected pair, to which so many session tickets come late."""
        return self.connect(self.tls and TLS(self.tls, num_tickets=tickets))


class State(NamedTuple):
    """One state: what brings a pair into it, and the verdict.

    ``needs_tls``: the TLS version without which it cannot be, ``any`` for whichever.
    ``is_usable``: the connection still carries a request and its answer. ``is_slow``: it takes the
    kernel half a second to get there.
    """

    enter: Callable[[Pair], None]
    verdict: Verdict
    needs_tls: Optional[str] = None
    needs_tcp: bool = False
    tickets: int = 0
    is_usable: bool = False
    is_slow: bool = False


def verdict_on(kind, state):
    if (kind, state) == ("tls-in-tls1.3", "late ticket"):
        # the outer layer has application data, and only the inner one could tell that it is none
        return Verdict.UNREAD
    if state == "surplus, FIN" and KINDS[kind].tls is not None:
        return Verdict.CLOSED  # what the records are is not asked where the connection has ended
    return STATES[state].verdict


def may_consume(kind, state):
    """Only a whole TLS 1.3 record with no FIN behind it is read: nothing else tells what it is."""
    return KINDS[kind].tls == "TLSv1.3" and "FIN" not in state and state != "half a record"


def is_possible(kind, state):
    has_tls = state.needs_tls in (None, kind.tls) or (state.needs_tls == "any" and kind.tls)
    return bool(has_tls) and (kind.is_tcp or not state.needs_tcp)


def parts_of(kind, state):
    """What a case is made of: each kind, and each state in plain, in each TLS and pyOpenSSL's."""
    is_slow, is_pyopenssl = STATES[state].is_slow, kind.startswith("pyopenssl")
    layer = None if is_slow else (KINDS[kind].tls, is_pyopenssl)
    return {kind, (state, layer)}


def native(family=socket.AF_INET):
    """The standard library's on both ends; green ones where the process is green."""
    return lambda settings: (
        tls_sockets._handshake(settings, family) if settings else testing.healthy(family=family)
    )


def pyopenssl(settings):
    """urllib3's ``WrappedSocket`` around a pyOpenSSL connection."""
    with warnings.catch_warnings():  # urllib3 1.26 calls the module deprecated
        warnings.simplefilter("ignore")
        from urllib3.contrib.pyopenssl import PyOpenSSLContext
    context = PyOpenSSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=settings.ca_path)
    bare = testing.healthy()
    peer = settings.wrap_server(bare.peer)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(peer.do_handshake)
        return Pair(context.wrap_socket(bare.client, server_hostname="localhost"), peer)


def tls_in_tls(inner):
    """urllib3's ``SSLTransport``: TLS spoken inside a TLS connection to a proxy."""
    outer = testing.tls_healthy(version=inner.version)
    with ThreadPoolExecutor(1) as executor:
        peer = executor.submit(InnerServer, outer.peer, inner.server_context)
        client = SSLTransport(outer.client, inner.client_context, "localhost")
        return Pair(client, peer.result())


class InnerServer(SSLTransport):
    """The far end of TLS in TLS, with what the states ask of a peer."""

    def __init__(self, outer, context):
        def wrap_bio(*args, **options):
            return context.wrap_bio(*args[:2], server_side=True)

        super().__init__(outer, SimpleNamespace(wrap_bio=wrap_bio))
        self.family = outer.family

    def send_records(self, *records):
        """Several of the inner layer's records in one of the outer layer's."""
        for record in records:
            self.sslobj.write(record)
        self.socket.sendall(self.outgoing.read())

    def say_goodbye(self):
        """Send a close_notify of the inner layer, and wait for none."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.sslobj.unwrap()
        self.send_records()

    def recv(self, *args):
        try:
            return super().recv(*args)
        finally:
            self.send_records()  # an alert, which urllib3's client would leave unsent


#: what one process has side by side
KINDS = {
    "ipv4": Kind(native()),
    "ipv6": Kind(native(socket.AF_INET6)),
    "unix": Kind(native(socket.AF_UNIX), is_tcp=False),
    "tls1.2": Kind(native(), "TLSv1.2"),
    "tls1.3": Kind(native(), "TLSv1.3"),
    "tls1.3-ipv6": Kind(native(socket.AF_INET6), "TLSv1.3"),
    "tls1.3-unix": Kind(native(socket.AF_UNIX), "TLSv1.3", is_tcp=False),
    "pyopenssl1.2": Kind(pyopenssl, "TLSv1.2"),
    "pyopenssl1.3": Kind(pyopenssl, "TLSv1.3"),
    "tls-in-tls1.2": Kind(tls_in_tls, "TLSv1.2"),
    "tls-in-tls1.3": Kind(tls_in_tls, "TLSv1.3"),
}


def _close(pair):
    pair.peer.close()
    kernel.wait_readable(pair.client, events=kernel.POLLRDHUP)


def _half_close(pair):
    kernel.shutdown(below(pair.peer), socket.SHUT_WR)
    kernel.wait_readable(pair.client, events=kernel.POLLRDHUP)


def _reset(pair):
    if pair.peer.family == socket.AF_UNIX:
        pair.client.sendall(b"\0")  # AF_UNIX knows no RST, but closing with bytes unread
    kernel.reset(below(pair.peer))
    kernel.wait_readable(pair.client, events=0)


def _surplus(pair):
    pair.peer.sendall(REQUEST_TIMEOUT)
    await_delivery(pair)


def _surplus_in_tls(pair):
    pair.peer.sendall(ANSWER + REQUEST_TIMEOUT)
    assert pair.client.recv(len(ANSWER)) == ANSWER


def _goodbye(pair):
    tls_sockets.say_goodbye(below(pair.peer))
    kernel.wait_readable(pair.client, events=kernel.POLLIN)


def in_turn(*acts):
    """One thing after the other."""
    return lambda pair: [act(pair) for act in acts] and None


def _record(length, brought):
    """A record that announces so many bytes and brings so many, which no key fits."""

    def send(pair):
        record = b"\x17\x03\x03\x00%c" % length + b"\0" * brought
        _socket.socket.send(layers_of(below(pair.peer)).raw, record)
        await_delivery(pair)

    return send


def _fatal_alert(pair):
    # what the client says is garbage, so the server's TLS layer gives up with an alert
    _socket.socket.send(layers_of(below(pair.client)).raw, b"\x17\x03\x03\x00\x20" + b"\0" * 32)
    with contextlib.suppress(ssl.SSLError):
        below(pair.peer).recv(1)
    kernel.wait_readable(pair.client, events=kernel.POLLIN)


def _swallow(pair):
    swallow(below(pair.peer))


def _user_timeout(pair):
    # one byte below TLS that is never acknowledged: the connection is past saving anyway
    _swallow(pair)
    raw = layers_of(below(pair.client)).raw
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
    _socket.socket.send(raw, b"\0")
    kernel.wait_readable(pair.client, 10, events=0)


def below(sock):
    """The socket a state can be made on: under pyOpenSSL's wrapper and the inner TLS."""
    return getattr(sock, "socket", sock)


STATES = {
    "healthy": State(in_turn(), Verdict.ALIVE, is_usable=True),
    "closed": State(_close, Verdict.CLOSED),
    "half-closed": State(_half_close, Verdict.CLOSED),
    "reset": State(_reset, Verdict.RESET),
    "FIN, RST": State(in_turn(_half_close, _reset), Verdict.CLOSED, needs_tcp=True),
    "surplus": State(_surplus, Verdict.UNREAD),
    "swallowed": State(_swallow, Verdict.ALIVE, needs_tcp=True),
    "kernel gave up": State(_user_timeout, Verdict.TIMED_OUT, needs_tcp=True, is_slow=True),
    "surplus in TLS": State(_surplus_in_tls, Verdict.TLS_PENDING, "any"),
    "surplus, FIN": State(in_turn(_surplus, _close), Verdict.UNREAD),
    "close_notify": State(_goodbye, Verdict.CLOSED, "any"),
    "close_notify, FIN": State(in_turn(_goodbye, _close), Verdict.CLOSED, "any"),
    "half a record": State(_record(64, brought=10), Verdict.UNREAD, "any"),
    "broken record": State(_record(32, brought=32), Verdict.CLOSED, "TLSv1.3"),
    "fatal alert": State(_fatal_alert, Verdict.CLOSED, "any"),
    "late ticket": State(await_delivery, Verdict.ALIVE, "TLSv1.3", tickets=2, is_usable=True),
    "late ticket, FIN": State(
        in_turn(await_delivery, _close), Verdict.CLOSED, "TLSv1.3", tickets=2
    ),
    "late ticket, surplus": State(
        in_turn(await_delivery, _surplus), Verdict.UNREAD, "TLSv1.3", tickets=2
    ),
}


def look(kind, state, timeout, may_consume=True):
    """Bring a new pair into a state, ask for the verdict once, and see if it is still usable.

    :returns: plain data: the verdict, the bytes gone from the kernel's buffer, and whether asking
        has changed a timeout.
    """
    with kind.make(state.tickets) as pair:
        state.enter(pair)
        pair.client.settimeout(timeout)
        before = _timeouts(pair.client), kernel.unread_bytes(pair.client)
        verdict = peek(pair.client, may_consume)
        after = _timeouts(pair.client), kernel.unread_bytes(pair.client)
        if state.is_usable and verdict is Verdict.ALIVE:
            converse(pair)
    return verdict.value, before[1] - after[1], before[0] != after[0]


def _timeouts(sock):
    """What the owner has set and what the kernel's socket has: two things where it is green."""
    return below(sock).gettimeout(), RawSocket.gettimeout(layers_of(sock).raw)


def converse(pair):
    """A request and its answer, whole: what a connection that was kept is for."""
    pair.client.settimeout(5)
    pair.client.sendall(b"ping")
    assert pair.peer.recv(4) == b"ping"
    pair.peer.sendall(b"pong")
    assert pair.client.recv(4) == b"pong"
