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

from pools import counters, shim, stock
from stalepool_testing import AnswerStep, Exchange, FaultServer

winrm = pytest.importorskip("winrm", reason="needs pywinrm")
spnego = pytest.importorskip("spnego", reason="needs pyspnego, of which pywinrm's NTLM is made")

SEALED = b"application/HTTP-SPNEGO-session-encrypted"
KIND = 'multipart/encrypted;protocol="%s";boundary="Encrypted Boundary"' % SEALED.decode()
BOUNDARY, END = b"--Encrypted Boundary\r\n", b"--Encrypted Boundary--\r\n"
OCTETS = b"\tContent-Type: application/octet-stream\r\n"


@dataclass(frozen=True)
class Echo(AnswerStep):
    """NTLM's acceptor; a sealed message is answered with itself.

    ``contexts``: of each connection, by its number.
    """

    contexts: Dict[int, Any] = field(default_factory=dict)

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        scheme, _, token = exchange.request.headers.get("authorization", "").partition(" ")
        context = self.contexts.get(exchange.channel.number)
        if scheme == "NTLM":
            if context is None:
                options = spnego.NegotiateOptions.use_ntlm
                context = spnego.server(protocol="ntlm", options=options)
                self.contexts[exchange.channel.number] = context
            challenge = context.step(base64.b64decode(token))
            if challenge is not None:
                said = "NTLM %s" % base64.b64encode(challenge).decode()
                exchange.respond(401, headers={"WWW-Authenticate": said})
                return
        if context is None:
            exchange.respond(401, headers={"WWW-Authenticate": "NTLM"})
        elif exchange.request.body:
            message = unsealed(exchange.request.body, context)
            exchange.respond(200, sealed(message, context), {"Content-Type": KIND})
        else:
            exchange.respond(200)


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


@pytest.mark.full
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_sealed_messages_stay_on_their_connection(who, tmp_path, monkeypatch):
    """Stock: all on one. Any other POST takes a fresh one with this setting."""
    users = tmp_path / "users"
    users.write_text("DOMAIN:user:password\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    settings = {} if who is stock else {"nonidempotent_max_idle_s": 0, "replay": "idempotent"}
    # of no environment's proxy or certificates
    options = {"username": "DOMAIN\\user", "password": "password", "proxy": None}
    with who(**settings), FaultServer(default=Echo()) as server:
        client = winrm.Protocol(server.url, transport="ntlm", ca_trust_path=None, **options)
        for message in (b"<one/>", b"<two/>", b"<three/>"):
            assert client.send_message(message) == message
        client.transport.close_session()
        assert {entry.connection for entry in server.journal} == {0}
        assert not counters(server).get("moved")
