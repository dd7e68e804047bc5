"""A second socket takes a connection's place, or does not; a tunnel is made anew for it."""

from __future__ import annotations

import functools
import socket
from typing import Any, ClassVar

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import pools
import stalepool
import stalepool_testing as testing
from breaks import breaks
from delayed_answers import SILENT
from pools import VERIFIES_NAMES_ALONE, await_arrival, counters, pooled_connection, shim
from replay_routes import proxied
from replay_tools import ECHO, acting, prime, reused, send
from stalepool.connection.fresh_socket import address_of
from stalepool.sockets.tcp_info import TcpInfo
from stalepool_testing import TLS, FaultServer, Latency, ProcessThenClose, ProcessThenReset, Step
from worlds import WITH_TESTS


@pytest.mark.parametrize(("rtt_us", "moved"), [(0, "failed"), (100_000, "idle_setting")])
def test_a_move_may_take_eight_round_trips(rtt_us: int, moved: str) -> None:
    """Or 0.25 s, if that is longer: this handshake takes more, as that of a host far away does."""
    says = TcpInfo(**{**SILENT, "rtt_us": rtt_us})
    with shim(nonidempotent_max_idle_s=0), reused(tls="TLSv1.3") as (server, pool):
        with server.add(Latency(0.4)), breaks("TCP_INFO", by=lambda _: says):
            assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {moved: 1}


def test_a_refused_move_has_no_window() -> None:
    """Its limit is long where a round trip is; and the old connection lives."""
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        server.stop_listening()
        with breaks("limit of a move", by=2.0):
            assert send(server, pool, "POST").status == 200
        assert [entry.connection for entry in server.journal] == [0, 0]
        assert (counters(server)["moved"], counters(server)["reconnects"]) == ({"failed": 1}, {})


def test_a_connection_that_was_closed_meanwhile_takes_none() -> None:
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        closes = [pooled_connection(pool).close]
        acting(pool, lambda: closes.pop()() if closes else None)
        outcome = send(server, pool, "POST")
        # as in stock: http.client opens a third socket and sends, but reads no answer; so
        # whether the server has seen the request by now is a race
        assert isinstance(outcome.error, urllib3.exceptions.ProtocolError)
        assert counters(server)["moved"] == {}
        server.wait_ended(1)


@pytest.mark.parametrize("ends", [ProcessThenClose(), ProcessThenReset()])
def test_a_peer_at_another_port_is_looked_up(ends: Step, connects: Any) -> None:
    """Somebody's patch leads a name to a forwarder; its address alone is that of a stranger."""
    with FaultServer([ECHO, ends]) as forwarder, FaultServer() as stranger, shim(
        replay="idempotent"
    ):
        connects.leads_to["api.internal"] = forwarder.host, forwarder.port
        with urllib3.HTTPConnectionPool("api.internal", stranger.port, retries=False) as pool:
            prime(pool)
            outcome = send(forwarder, pool, "PUT")
            assert (outcome.status, outcome.arrivals) == (200, 2)
            assert len(stranger.journal) == 0


@pytest.mark.parametrize("make", [testing.reset, testing.healthy])
def test_a_socket_that_leads_to_no_address_of_the_connections(make: Any) -> None:
    """It has been reset, or leads to another port, as to a forwarder."""
    conn = HTTPConnection("127.0.0.1", 1)
    with make() as pair:
        conn.sock = pair.client
        assert address_of(conn) is None


def test_a_replay_looks_the_name_up(connects: Any) -> None:
    """As urllib3's own retry would: it leads to another node by now, since this one is to end."""
    with shim(replay="idempotent"), FaultServer([ECHO, ECHO, ProcessThenReset()]) as ending:
        connects.leads_to["api.internal"] = "127.0.0.1", ending.port
        with urllib3.HTTPConnectionPool("api.internal", ending.port, retries=False) as pool:
            prime(pool, times=2)
            with FaultServer(host="127.0.0.2") as another:
                connects.leads_to["api.internal"] = "127.0.0.2", another.port
                assert send(another, pool, "PUT").status == 200
                assert len(another.journal) == 1


SYN_SENT = 2  # linux/tcp_states.h


class Counted(HTTPConnection):
    """At most one may be open: ``connect()`` acquires what ``close()`` releases."""

    def connect(self) -> None:
        super().connect()

    def close(self) -> None:
        super().close()


class CountedByHalves(HTTPConnection):
    """The same, by the method that opens the TCP connection."""

    def _new_conn(self) -> Any:
        return super()._new_conn()

    def close(self) -> None:
        super().close()


def with_a_hook(name: str) -> Any:
    """Set on the connection, and bound to it: a copy's would act on the original's socket."""

    class Hooked(HTTPConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            setattr(self, name, getattr(super(), name))

    return Hooked


class HasAFinalizer(HTTPConnection):
    """What it stops is shared with a copy: a helper, a tunnel."""

    def __del__(self) -> None:
        """Stop it."""


class OpenedByHand(HTTPConnection):
    """It does not connect by itself."""

    def connect(self) -> None:
        super().connect()
        self.auto_open = 0


class LogsIn(HTTPConnection):
    """Keeps what is true of one socket alone, and would be of one that is gone."""

    def connect(self) -> None:
        super().connect()
        self.session = object()


class OneAtATime(HTTPConnection):
    """Refuses a second connection by an exception of its own."""

    is_first: ClassVar[bool]

    def connect(self) -> None:
        is_first, OneAtATime.is_first = self.is_first, False
        if not is_first:
            raise LookupError("of the application")
        super().connect()


class NotCopied(HTTPConnection):
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise LookupError("of the application")


#: class -> how many sockets it may open, and whether a request rides the second one
CLASSES = {
    Counted: (1, False),  # a fresh connection would be one too many
    CountedByHalves: (1, False),
    **{
        with_a_hook(name): (1, False)
        for name in ("connect", "close", "send", "_new_conn", "_tunnel")
    },
    HasAFinalizer: (1, False),
    OpenedByHand: (1, False),
    LogsIn: (2, False),
    OneAtATime: (1, False),
    NotCopied: (2, True),  # the fresh connection is made without asking it for a copy
}

#: a request that would be moved, and one that would be replayed
moved_or_replayed = pytest.mark.parametrize(
    ("method", "step"), [("POST", ECHO), ("GET", ProcessThenClose())], ids=["moved", "replayed"]
)


def assert_sockets(cls: Any, method: str, step: Step, at_most: int, rides_it: bool) -> None:
    """Send a request on a connection of a class, and see on which socket it went out."""
    settings = {"replay": "idempotent", "nonidempotent_max_idle_s": 0}
    with shim(**settings), reused(step, connection_class=cls) as (server, pool):
        outcome = send(server, pool, method)
        assert outcome.status == (200 if rides_it or step is ECHO else None)
        assert outcome.arrivals == (2 if rides_it and step is not ECHO else 1)
        assert server.journal[-1].connection == rides_it
        assert len(server.journal.connections) <= at_most
        failed = {"fresh_socket_failed": 1} if cls is OneAtATime else {}
        assert stalepool.snapshot()["fallbacks"] == failed


@pytest.mark.parametrize("cls", CLASSES)
@moved_or_replayed
def test_a_class_of_somebody_else(cls: Any, method: str, step: Step) -> None:
    OneAtATime.is_first = True
    assert_sockets(cls, method, step, *CLASSES[cls])


@moved_or_replayed
def test_connect_and_close_may_have_been_replaced(method, step, monkeypatch):
    """By functions that acquire and release, as those of :class:`Counted` do."""
    for name in ("connect", "close"):
        stocks = getattr(HTTPConnection, name)
        theirs = functools.wraps(stocks)(lambda self, call=stocks: call(self))
        monkeypatch.setattr(HTTPConnection, name, theirs)
    assert_sockets(HTTPConnection, method, step, at_most=1, rides_it=False)


@pytest.mark.parametrize("name", ["_validate_conn", "_prepare_proxy"])
@pytest.mark.parametrize("cls", [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool])
@moved_or_replayed
def test_a_hook_of_the_pools_may_have_been_decorated(name, cls, method, step, monkeypatch):
    """As for a pinned certificate, or a proxy's token: no socket that it is for goes without it."""
    monkeypatch.setattr(cls, name, functools.wraps(getattr(cls, name))(lambda *args: None))
    is_for_tls = cls is urllib3.HTTPSConnectionPool
    assert_sockets(HTTPConnection, method, step, 1 + is_for_tls, rides_it=is_for_tls)


def test_a_socket_that_is_not_connected_yet_takes_no_place() -> None:
    """Under TCP_FASTOPEN_CONNECT the SYN goes out with the first data."""
    says = {**SILENT, "state": SYN_SENT}
    with breaks("TCP_INFO", by=lambda _: TcpInfo(**says)):
        assert_sockets(HTTPConnection, "POST", ECHO, at_most=2, rides_it=False)


PINNED = """
    import functools, json

    import in_client  # quiets eventlet
    import eventlet, stalepool, urllib3
    from pools import Server
    from replay_tools import outcome
    from stalepool_testing import ProcessThenClose, Respond

    green = eventlet.import_patched("urllib3")

    class Pins:
        def _validate_conn(self, conn):
            super()._validate_conn(conn)  # and whatever it asks of the peer

    class Pinned(Pins, green.HTTPConnectionPool):
        pass

    class MadeByAFunction(urllib3.HTTPConnectionPool):
        ConnectionCls = functools.partial(urllib3.connection.HTTPConnection)

    found = []
    for copy in (green, urllib3):
        with Server([Respond(), ProcessThenClose()]) as server:
            options = {"maxsize": 1, "retries": False, "timeout": 20.0}
            with copy.HTTPConnectionPool(server.host, server.port, **options) as pool:
                assert pool.request("GET", "/").status == 200
                found.append([outcome(pool, "GET"), len(server.journal.connections)])
    print(json.dumps(found))
"""


def test_where_a_pool_checks_its_connections_none_is_opened_without_it(run_python: Any) -> None:
    """Any pool of the same urllib3 may be the connection's; those of another copy are not."""
    (refused, opened), other_copy = run_python(PINNED, env=WITH_TESTS)
    assert (refused[0], opened) == ("ProtocolError", 1)
    assert other_copy == [200, 2]


SECURED = TLS("TLSv1.3")
#: a tunnel through a proxy: who speaks TLS, and the family
TUNNELS = {
    "CONNECT": {"tls": SECURED},
    "CONNECT, IPv6": {"tls": SECURED, "family": socket.AF_INET6},
    "TLS in TLS": {"tls": SECURED, "proxy_tls": SECURED},
}
if VERIFIES_NAMES_ALONE:
    TUNNELS = {"CONNECT": TUNNELS["CONNECT"]}
#: plain HTTP, handed on by the proxy
FORWARDING = {
    "http": {},
    "http, IPv6": {"family": socket.AF_INET6},
    "https": {"proxy_tls": SECURED},
}


def end_by_the_proxy(way, reset):
    if way.proxy.tunnels:
        assert way.proxy.cut(reset=reset) == 1
    else:
        channel = way.proxy.channels[0]
        channel.tell(channel.reset if reset else channel.close)


@pytest.mark.each_value
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("name", [*TUNNELS, *FORWARDING])
def test_an_end_by_the_proxy(name, reset):
    """A tunnel is counted for the server, whoever is at fault; what is forwarded, for the proxy."""
    with shim(), proxied(**{**TUNNELS, **FORWARDING}[name]) as way:
        assert [way.send(), way.send()] == [200, 200]
        end_by_the_proxy(way, reset)
        await_arrival(way.pool, events=testing.kernel.POLLRDHUP)  # it has come all the way

        assert way.send() == 200

        assert len(way.proxy.tunnels) == (2 if name in TUNNELS else 0)
        methods = [entry.method for entry in way.proxy.forwarded]
        assert methods == ([] if name in TUNNELS else ["GET"] * 3)
        origin = way.server if name in TUNNELS else way.proxy
        assert len(origin.journal.connections) == 2
        assert pools.verdicts(origin) == {"alive": 1, "reset" if reset else "closed": 1}
        origins = stalepool.snapshot()["origins"]
        assert way.proxy.origin in origins
        assert [name for name in origins if origins[name]["checkouts"]] == [origin.origin]
