"""Messages encrypted for one connection (NTLM) stay on it: WinRM over HTTP, by real pywinrm.

NTLM authenticates the connection, and its keys seal every message that follows (MS-WSMV, 2.2.9.1).
On another connection a message is nobody's, and cannot be read.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from typing import Any, Dict

import pytest

from pools import counters, shim, stock, wait_idle
from stalepool_testing import AnswerStep, Exchange, FaultServer

winrm = pytest.importorskip("winrm", reason="needs pywinrm")
spnego = pytest.importorskip("spnego", reason="needs pyspnego, of which pywinrm's NTLM is made")

#: a connection that is idle for so long is in the last quarter of what the server announces
IDLE_S, HINT = 2.0, {"Keep-Alive": "timeout=2"}

SEALED = b"application/HTTP-SPNEGO-session-encrypted"
BOUNDARY, END = b"--Encrypted Boundary\r\n", b"--Encrypted Boundary--\r\n"
OCTETS = b"\tContent-Type: application/octet-stream\r\n"


@dataclass(frozen=True)
class Echo(AnswerStep):
    """NTLM's acceptor; a message is answered with itself, sealed where it came sealed.

    ``contexts``: of each connection, by its number.
    """

    contexts: Dict[int, Any] = field(default_factory=dict)

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        scheme, _, token = exchange.request.headers.get("authorization", "").partition(" ")
        context = self.contexts.get(exchange.channel.number)
        if scheme == "Basic":
            exchange.respond(200, exchange.request.body, HINT)
        elif scheme == "NTLM":
            self._shake_hands(exchange, base64.b64decode(token))
        elif context is None:
            exchange.respond(401, headers={"WWW-Authenticate": "NTLM", **HINT})
        else:
            self._echo_sealed(exchange, context)

    def _shake_hands(self, exchange: Exchange, token: bytes) -> None:
        number = exchange.channel.number
        if number not in self.contexts:
            options = spnego.NegotiateOptions.use_ntlm
            self.contexts[number] = spnego.server(protocol="ntlm", options=options)
        challenge = self.contexts[number].step(token)
        if challenge is not None:
            said = "NTLM %s" % base64.b64encode(challenge).decode()
            exchange.respond(401, headers={"WWW-Authenticate": said, **HINT})
        elif exchange.request.body:
            self._echo_sealed(exchange, self.contexts[number])
        else:
            exchange.respond(200, headers=HINT)

    def _echo_sealed(self, exchange: Exchange, context: Any) -> None:
        try:
            message = unsealed(exchange.request.body, context)
        except spnego.exceptions.SpnegoError as error:
            exchange.respond(400, str(error).encode(), HINT)
            return
        kind = 'multipart/encrypted;protocol="%s";boundary="Encrypted Boundary"' % SEALED.decode()
        exchange.respond(200, sealed(message, context), {"Content-Type": kind, **HINT})


def unsealed(body: bytes, context: Any) -> bytes:
    data = body.partition(OCTETS)[2][: -len(END)]
    (size,) = struct.unpack("<i", data[:4])
    return bytes(context.unwrap_winrm(data[4 : 4 + size], data[4 + size :]))


def sealed(message: bytes, context: Any) -> bytes:
    wrapped = context.wrap_winrm(message)
    original = b"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n"
    head = [b"\tContent-Type: %s\r\n" % SEALED, original % len(message), BOUNDARY, OCTETS]
    size = struct.pack("<i", len(wrapped.header))
    return b"".join([BOUNDARY, *head, size, wrapped.header, wrapped.data, END])


def client(server: FaultServer, transport: str) -> Any:
    """One of pywinrm's; no environment's proxy or certificates."""
    options = {"username": "DOMAIN\\user", "password": "password", "proxy": None}
    return winrm.Protocol(server.url, transport=transport, ca_trust_path=None, **options)


def pool_of(client: Any) -> Any:
    pools = client.transport.session.get_adapter("http://").poolmanager.pools
    (key,) = pools.keys()
    return pools[key]


@pytest.fixture
def server(tmp_path, monkeypatch):
    users = tmp_path / "users"
    users.write_text("DOMAIN:user:password\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    with FaultServer(default=Echo()) as server:
        yield server


@pytest.mark.full
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_sealed_messages_stay_on_their_connection(server, who):
    """Stock: all on one. A client with Basic beside it shows that the limit is near: it moves."""
    settings = {} if who is stock else {"nonidempotent_max_idle_s": "auto", "replay": "idempotent"}
    with who(**settings):
        bound, free = client(server, "ntlm"), client(server, "basic")
        for message in (b"<one/>", b"<two/>"):
            assert bound.send_message(message) == message
        assert free.send_message(b"<one/>") == b"<one/>"
        for each in (bound, free):
            wait_idle(pool_of(each), IDLE_S)
        assert bound.send_message(b"<three/>") == b"<three/>"
        assert free.send_message(b"<two/>") == b"<two/>"
        moved = counters(server).get("moved", {})
        for each in (bound, free):
            each.transport.close_session()
    handshake, fresh = 3, int(who is not stock)
    on = [entry.connection for entry in server.journal]
    assert on == [0] * (handshake + 2) + [1] + [0] + [1 + fresh]
    assert moved == ({"announced_limit": 1} if fresh else {})
