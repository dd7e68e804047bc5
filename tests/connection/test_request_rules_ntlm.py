"""Messages of a connection that NTLM has authenticated stay on it: WinRM over HTTP, by pywinrm."""

from __future__ import annotations

import base64
from typing import Any, Dict

import pytest

from pools import counters, shim, stock
from stalepool_testing import AnswerStep, Exchange, FaultServer

winrm = pytest.importorskip("winrm", reason="needs pywinrm")
spnego = pytest.importorskip("spnego", reason="needs pyspnego, of which pywinrm's NTLM is made")


class Acceptor(AnswerStep):
    """NTLM's; a message on a connection that it knows is answered with itself."""

    def __init__(self) -> None:
        self.contexts: Dict[int, Any] = {}

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        number = exchange.channel.number
        scheme, _, token = exchange.request.headers.get("authorization", "").partition(" ")
        if scheme == "NTLM":
            options = {"protocol": "ntlm", "options": spnego.NegotiateOptions.use_ntlm}
            context = self.contexts.setdefault(number, spnego.server(**options))
            challenge = context.step(base64.b64decode(token))
            if challenge is not None:
                said = "NTLM %s" % base64.b64encode(challenge).decode()
                exchange.respond(401, headers={"WWW-Authenticate": said})
                return
        if number in self.contexts:
            exchange.respond(200, exchange.request.body)
        else:
            exchange.respond(401, headers={"WWW-Authenticate": "NTLM"})


@pytest.mark.full
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_messages_stay_on_their_connection(who, tmp_path, monkeypatch):
    """Stock: all on one. Any other POST takes a fresh one with this setting."""
    users = tmp_path / "users"
    users.write_text("DOMAIN:user:password\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    settings = {} if who is stock else {"nonidempotent_max_idle_s": 0, "replay": "idempotent"}
    # of no environment's proxy or certificates
    options = {"username": "DOMAIN\\user", "password": "password", "proxy": None}
    options.update(ca_trust_path=None, message_encryption="never")
    with who(**settings), FaultServer(default=Acceptor()) as server:
        client = winrm.Protocol(server.url, transport="ntlm", **options)
        for message in (b"<one/>", b"<two/>", b"<three/>"):
            assert client.send_message(message) == message
        client.transport.close_session()
        assert {entry.connection for entry in server.journal} == {0}
        assert not counters(server).get("moved")
