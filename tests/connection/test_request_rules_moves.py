"""A POST after an idle time stays on its connection, unless the connection is likely to end now.

All cases run side by side, since they take seconds.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import pytest
import urllib3
from urllib3.exceptions import HTTPError

import pools
from breaks import breaks
from gates import Gate
from pools import DEFAULTS, UnknownSocket, counters, get, pool_for, pooled_connection, shim, stock
from replay_routes import proxied
from replay_tools import reused, wrong
from stalepool import stats
from stalepool_testing import TLS, AnswerStep, Close, CloseAfter, Exchange, FaultServer, Respond
from worlds import beside

#: idle time between two POSTs: where the clock was taken for evidence, 1 s was
APART_S = 1.1
#: the last quarter of an announced second
LIMITED = Respond(headers={"Keep-Alive": "timeout=1"})
NEAR_S = 0.85
NEAR = (0, NEAR_S)
#: a quarter of the connect timeout is the most that a move may take
TIMEOUT = urllib3.Timeout(connect=10.0, read=20.0)


class Seen(NamedTuple):
    """What became of the requests of one case: plain data, from whatever process.

    ``ends``: statuses, or names of errors. ``on``: numbers of the connections that they came on.
    """

    ends: List[Any]
    on: List[int]
    connections: int
    moved: Dict[str, int]
    knowledge: Dict[str, Any]


def ask(pool: Any, pauses_s: Any) -> List[Any]:
    """Send a POST after each pause; returns how they ended."""
    ends: List[Any] = []
    for pause_s in pauses_s:
        time.sleep(pause_s)
        try:
            ends.append(pool.request("POST", "/", body=b"x", timeout=TIMEOUT).status)
        except (HTTPError, OSError) as error:
            ends.append(type(error).__name__)
    return ends


def seen_at(server: Any, ends: List[Any], counted_at: Any = None) -> Seen:
    counted = counters(counted_at or server)
    on = [entry.connection for entry in server.journal]
    moved, knowledge = counted.get("moved", {}), counted.get("knowledge", {})
    return Seen(ends, on, len(server.journal.connections), moved, knowledge)


def posts(
    pauses_s: Any,
    script: Any = (),
    *,
    default: Any = LIMITED,
    tls: Any = None,
    server_class: Any = FaultServer,
    **options: Any,
) -> Seen:
    """POSTs apart; ``options`` are the pool's."""
    with server_class(script, default=default, tls=tls) as server:
        with pool_for(server, tls, **options) as pool:
            return seen_at(server, ask(pool, pauses_s))


class OneAtATime(FaultServer):
    """Serves one connection at a time, from its handshake on; the others wait until it is gone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._turn = threading.Lock()
        super().__init__(*args, **options)

    def _serve_one(self, channel: Any) -> None:
        with self._turn:
            super()._serve_one(channel)


def at_an_observed_limit() -> Seen:
    """The server has closed three at the same age, two of them a minute ago."""
    with FaultServer([Respond(), CloseAfter(1.1)]) as server, pool_for(server) as pool:
        stats.origin(server.origin).knowledge._fins = ((time.monotonic() - 60, 1.3),) * 2
        pools.break_while_idle(server, pool)
        ends = ask(pool, [0])
        pools.wait_idle(pool, 1.0)
        return seen_at(server, ends + ask(pool, [0]))


def fixed_source_port() -> Seen:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        source = taken.getsockname()
    return posts((*NEAR, NEAR_S), source_address=source)


def draining() -> Seen:
    """Nobody listens any more; what is connected is served until the client goes."""
    with FaultServer(default=LIMITED) as server, Gate(server) as gate, pool_for(gate) as pool:
        assert get(pool) == 200
        gate.stop_listening()
        return seen_at(server, ask(pool, (NEAR_S, NEAR_S)), gate)


def through_a_proxy() -> Seen:
    """TLS inside a CONNECT tunnel; the proxy sees the name, and the certificate is checked."""
    with proxied(default=LIMITED, tls=TLS()) as way:
        pool = way.manager.connection_from_url("https://localhost:%d/" % way.server.port)
        return seen_at(way.server, ask(pool, NEAR))


def is_moved(seen: Seen) -> bool:
    return (
        (seen.ends, seen.on, seen.connections) == ([200, 200], [0, 1], 2)
        and seen.moved == {"announced_limit": 1}
        and not seen.knowledge["moves_stopped_for_s"]
    )


def stays(seen: Seen) -> bool:
    """No fresh socket could be had, and it is not tried again for a while."""
    is_on_the_first = set(seen.ends) == {200} and set(seen.on) == {0}
    has_stopped = seen.moved == {"failed": 1} and seen.knowledge["moves_stopped_for_s"]
    return bool(is_on_the_first and has_stopped)


def is_the_callers_error(seen: Seen) -> bool:
    """That of the connection it moved to; moves are over for a while."""
    return (
        (seen.ends, seen.on) == ([200, "ProtocolError", 200, 200], [0, 1, 2, 2])
        and seen.moved == {"announced_limit": 1}
        and seen.knowledge["moves_stopped_for_s"]
    )


def rides(seen: Seen) -> bool:
    """All were answered, on one connection; in stock all of these do."""
    return set(seen.ends) == {200} and seen.connections == 1 and not seen.moved


#: what is played, and what judges that which was seen
CASES: Dict[str, Tuple[Callable[[], Seen], Callable[[Seen], Any]]] = {
    "far from an announced limit": (
        lambda: posts((0, APART_S), default=Respond(headers={"Keep-Alive": "timeout=9"})),
        rides,
    ),
    "plain": (lambda: posts(NEAR), is_moved),
    "TLS": (lambda: posts(NEAR, tls=TLS()), is_moved),
    "one at a time": (lambda: posts(NEAR, server_class=OneAtATime), is_moved),
    "proxy": (through_a_proxy, is_moved),
    "observed limit": (
        at_an_observed_limit,
        lambda seen: (seen.on, seen.moved) == ([0, 1, 2], {"observed_limit": 1}),
    ),
    # where no fresh socket can be had
    "draining": (draining, stays),
    "fixed source port": (fixed_source_port, stays),
    "TLS, one at a time": (
        lambda: posts((*NEAR, NEAR_S), server_class=OneAtATime, tls=TLS()),
        stays,
    ),
    "fresh one ends": (
        lambda: posts((0, NEAR_S, 0, NEAR_S), [LIMITED, Close()]),
        is_the_callers_error,
    ),
}

GREEN_CASES = {
    name: CASES[name] for name in ("plain", "TLS", "proxy", "draining", "TLS, one at a time")
}


def wrong_with_the_shim(cases: Any) -> Dict[str, Any]:
    # a busy machine may need longer than a move is given: ``test_fresh_socket``
    with shim(**DEFAULTS), breaks("limit of a move", by=3.0):
        return wrong(cases)


def test_on_threads():
    """Stock: any request rides, whatever was announced."""
    assert wrong_with_the_shim(CASES) == {}


GREEN = """
    import json

    from worlds import enter
    enter("eventlet")
    import test_request_rules_moves as tests

    print(json.dumps(tests.wrong_with_the_shim(tests.GREEN_CASES)))
"""


def test_under_eventlet(run_python):
    """Stock: as on threads."""
    # eventlet leaves a TLS socket whose handshake failed to its finalizer, which warns
    flags = ("-Wignore:unclosed:ResourceWarning",)
    assert run_python(GREEN, env=beside(__file__), flags=flags) == {}


@contextlib.contextmanager
def by_ipv6():
    with pools.serving(family=socket.AF_INET6) as (server, pool):
        yield server, lambda method: pool.request(method, "/").status


@contextlib.contextmanager
def by_a_proxy(tls=None, proxy_tls=None):
    with proxied(tls=tls, proxy_tls=proxy_tls) as way:
        yield way.proxy if tls is None else way.server, way.send


WAYS = {
    "ipv6": by_ipv6,
    "forwarding proxy": by_a_proxy,
    "tls in tls": lambda: by_a_proxy(TLS(), TLS()),
}
if pools.VERIFIES_NAMES_ALONE:
    del WAYS["tls in tls"]


@pytest.mark.parametrize("way", WAYS)
def test_by_every_way(way):
    """Stock: all on one connection. A forwarding proxy's counts, not the one behind it."""
    with shim(nonidempotent_max_idle_s=0), WAYS[way]() as (origin, send):
        assert [send(method) for method in ("GET", "PUT", "POST", "PATCH")] == [200] * 4
        assert len(origin.journal.connections) == 3
        assert counters(origin)["moved"] == {"idle_setting": 2}
        assert pools.verdicts(origin) == {"alive": 3}


def test_a_socket_of_unknown_kind():
    """Its idle time counts from the last answer, too."""
    with shim(nonidempotent_max_idle_s=1), reused() as (server, pool):
        conn = pooled_connection(pool)
        conn.sock = UnknownSocket(conn.sock)
        assert get(pool) == 200
        pools.let_pass(pool, 1)
        assert pool.request("POST", "/", body=b"x").status == 200
        assert counters(server)["moved"] == {"idle_setting": 1}


def test_the_callers_timeout_is_on_the_fresh_socket():
    """From the first byte on, as on the old one: it may take longer to send than to connect."""
    said = []
    for rides, setting in enumerate(("off", 0)):
        with shim(nonidempotent_max_idle_s=setting), reused(timeout=7.5) as (server, pool):
            conn = pooled_connection(pool)
            told = (b"%g" % conn.sock.gettimeout() for _ in range(1))  # asked while it is sent
            assert pool.request("POST", "/", body=told).status == 200
            assert server.journal[-1].connection == rides
            said.append((server.journal[-1].body, conn.sock.gettimeout(), conn.timeout))
    assert said[0] == said[1]


class Acceptor(AnswerStep):
    """NTLM's; a message on a connection that it knows is answered with itself."""

    def __init__(self) -> None:
        self.contexts: Dict[int, Any] = {}

    def answer(self, exchange: Exchange) -> None:
        import spnego

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
def test_messages_stay_on_the_connection_that_ntlm_has_authenticated(who, tmp_path, monkeypatch):
    """WinRM over HTTP; on another connection they are nobody's. Stock: all on one.

    Any other POST takes a fresh one with this setting.
    """
    winrm = pytest.importorskip("winrm", reason="needs pywinrm")
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
