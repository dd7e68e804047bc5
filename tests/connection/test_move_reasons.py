"""A POST after an idle time stays on its connection, unless the connection is likely to end now.

All cases run side by side, since they take seconds.
"""

import base64
import threading
import time
from typing import Any, Dict, List, NamedTuple

import pytest
import urllib3
from urllib3.exceptions import HTTPError

import pools
from breaks import breaks
from pools import DEFAULTS, counters, pool_for, shim
from replay_tools import wrong
from stalepool import stats
from stalepool_testing import TLS, AnswerStep, Close, CloseAfter, FaultServer, Respond
from worlds import under_eventlet

#: the last quarter of an announced second
LIMITED = Respond(headers={"Keep-Alive": "timeout=1"})
NEAR_S = 0.85
NEAR, TWICE = (0, NEAR_S), (0, NEAR_S, NEAR_S)
#: a tenth of the connect timeout is the most that a step of a move may take
TIMEOUT = urllib3.Timeout(connect=25.0, read=20.0)


class Seen(NamedTuple):
    """``ends``: statuses, or names of errors. ``on``: numbers of the requests' connections."""

    ends: List[Any]
    on: List[int]
    moved: Dict[str, int]
    have_stopped: bool


def ask(pool, pauses_s):
    """Send a POST after each pause; returns how they ended."""
    ends = []
    for pause_s in pauses_s:
        time.sleep(pause_s)
        try:
            ends.append(pool.request("POST", "/", body=b"x", timeout=TIMEOUT).status)
        except (HTTPError, OSError) as error:
            ends.append(type(error).__name__)
    return ends


def seen_at(server, ends):
    counted = counters(server)
    on = [entry.connection for entry in server.journal]
    return Seen(ends, on, counted["moved"], bool(counted["knowledge"]["moves_stopped_for_s"]))


def posts(pauses_s=NEAR, script=(), tls=None, server_class=FaultServer):
    """POSTs apart."""
    with server_class(script, default=LIMITED, tls=tls) as server, pool_for(server, tls) as pool:
        return seen_at(server, ask(pool, pauses_s))


class OneAtATime(FaultServer):
    """Serves one connection at a time, from its handshake on; the others wait until it is gone."""

    def __init__(self, *args, **options):
        self._turn = threading.Lock()
        super().__init__(*args, **options)

    def _serve_one(self, channel):
        with self._turn:
            super()._serve_one(channel)


def at_a_limit():
    """The server has closed three at the same age, two of them a minute ago."""
    with FaultServer([Respond(), CloseAfter(1.1)]) as server, pool_for(server) as pool:
        stats.origin(server.origin).knowledge._fins = ((time.monotonic() - 60, 1.3),) * 2
        pools.break_while_idle(server, pool)
        ends = ask(pool, [0])
        pools.wait_idle(pool, 1.0)
        return seen_at(server, ends + ask(pool, [0]))


def draining():
    """Nobody listens any more; what is connected is served until the client goes."""
    with FaultServer(default=LIMITED) as server, pool_for(server) as pool:
        ends = ask(pool, [0])
        server.stop_listening()
        return seen_at(server, ends + ask(pool, (NEAR_S, NEAR_S)))


MOVED = Seen([200, 200], [0, 1], {"announced_limit": 1}, False)
#: no fresh socket could be had, and it is not tried again for a while
STAYS = Seen([200, 200, 200], [0, 0, 0], {"failed": 1}, True)

#: what is played, and what must be seen; in stock each rides one connection
CASES = {
    "one at a time": (lambda: posts(server_class=OneAtATime), MOVED),
    "observed limit": (at_a_limit, Seen([200, 200], [0, 1, 2], {"observed_limit": 1}, False)),
    # where no fresh socket can be had
    "draining": (draining, STAYS),
    "TLS, one at a time": (lambda: posts(TWICE, server_class=OneAtATime, tls=TLS()), STAYS),
    # its error is the caller's; moves are over for a while
    "fresh one ends": (
        lambda: posts((*NEAR, *NEAR), [LIMITED, Close()]),
        Seen([200, "ProtocolError", 200, 200], [0, 1, 2, 2], {"announced_limit": 1}, True),
    ),
}
GREEN_CASES = ("one at a time", "draining", "TLS, one at a time")


def wrong_with_the_shim(names):
    # a busy machine may need longer than a move is given: ``test_move``
    with shim(**DEFAULTS), breaks("limit of a move", by=3.0):
        return wrong({name: (CASES[name][0], CASES[name][1].__eq__) for name in names})


def test_on_threads():
    assert wrong_with_the_shim(CASES) == {}


def test_under_eventlet(run_python):
    assert under_eventlet(run_python, __file__, "wrong_with_the_shim", "GREEN_CASES") == {}


class Acceptor(AnswerStep):
    """NTLM's; a message on a connection that it knows is answered with itself."""

    def __init__(self):
        self.contexts = {}

    def answer(self, exchange):
        import spnego

        exchange.process()
        number, challenge = exchange.channel.number, None
        scheme, _, token = exchange.request.headers.get("authorization", "").partition(" ")
        if scheme == "NTLM":
            options = {"protocol": "ntlm", "options": spnego.NegotiateOptions.use_ntlm}
            context = self.contexts.setdefault(number, spnego.server(**options))
            challenge = context.step(base64.b64decode(token))
        if challenge is None and number in self.contexts:
            exchange.respond(200, exchange.request.body)
        else:
            said = "NTLM %s" % base64.b64encode(challenge or b"").decode()
            exchange.respond(401, headers={"WWW-Authenticate": said.strip()})


@pytest.mark.full
def test_messages_stay_on_the_connection_that_ntlm_has_authenticated(tmp_path, monkeypatch):
    """WinRM over HTTP. Any other POST takes a fresh one with this setting."""
    winrm = pytest.importorskip("winrm", reason="needs pywinrm")
    users = tmp_path / "users"
    users.write_text("DOMAIN:user:password\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    settings = {"nonidempotent_max_idle_s": 0, "replay": "idempotent"}
    # of no environment's proxy or certificates
    options = {"proxy": None, "ca_trust_path": None, "message_encryption": "never"}
    options.update(transport="ntlm", username="DOMAIN\\user", password="password")
    with shim(**settings), FaultServer(default=Acceptor()) as server:
        client = winrm.Protocol(server.url, **options)
        for message in (b"<one/>", b"<two/>", b"<three/>"):
            assert client.send_message(message) == message
        client.transport.close_session()
        assert len(server.journal.connections) == 1
