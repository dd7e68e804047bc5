"""A second socket takes a connection's place, or does not; a tunnel is made anew for it."""

import functools
import gc
import socket
import ssl

import pytest
import requests
import urllib3
from urllib3.connection import CertificateError, HTTPConnection

import stalepool
import stalepool_testing as testing
from breaks import breaks, raises
from errors import links
from freed import is_freed_under_eventlet
from pools import answer_no_connect, await_arrival, counters, shim, verdicts
from replay_routes import proxied
from replay_tools import ECHO, outcome, prime, reused, send, wrapped_by_a_tracer
from stalepool import runtime
from stalepool.connection.fresh_socket import abandon, address_of, take
from stalepool.connection.state import FRESH, Request, State
from stalepool_testing import TLS, Close, FaultServer, ProcessThenReset, Respond, kernel


@pytest.mark.parametrize(("method", "step"), [("PUT", ProcessThenReset()), ("POST", ECHO)])
def test_a_name_is_looked_up(method, step, connects):
    """For a replay: it leads to another node by now, since this one is to end.

    And for a move where a patch leads it to a forwarder's port: the address alone is a stranger's.
    """
    node, stranger = FaultServer([ECHO, ECHO, step]), FaultServer()
    with shim(replay="idempotent", nonidempotent_max_idle_s=0), node, stranger, FaultServer(
        host="127.0.0.2"
    ) as another, urllib3.HTTPConnectionPool("api", stranger.port, retries=False) as pool:
        connects.leads_to["api"] = node.host, node.port
        prime(pool, times=2)
        connects.leads_to["api"] = another.host, another.port
        assert send(another, pool, method).status == 200
        assert (len(another.journal), len(stranger.journal)) == (1, 0)


class Noted(HTTPConnection):
    """Whose instances are counted."""


def count_noted():
    return sum(type(each) is Noted for each in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
def test_a_failed_one_leaves_nothing_in_memory():
    """Not even until the next garbage collection; urllib3 1.26 has its error in a frame."""
    with shim(nonidempotent_max_idle_s=0), reused(connection_class=Noted) as (server, pool):
        server.stop_listening()
        assert send(server, pool, "POST").status == 200
        assert count_noted() == 1  # the pool's


def test_a_socket_says_itself_where_it_leads():
    """PySocks, in place of ``socket.socket``, names the server behind the proxy."""
    proxied = type("Proxied", (socket.socket,), {"getpeername": lambda self: self.name})
    conn = HTTPConnection("api", 80)
    with proxied() as conn.sock:
        conn.sock.name = ("10.0.0.1", 80)
        assert address_of(conn) == "10.0.0.1"
        conn.sock.name = ("fe80::1", 80, 0, 2)
        assert address_of(conn) is None  # link-local: it would lack its scope
    with testing.reset() as pair:
        conn.sock = pair.client
        assert address_of(conn) is None  # it cannot say any more


@pytest.mark.parametrize("kind", [TimeoutError, requests.Timeout, type("Own", (OSError,), {})])
def test_a_deadline_ends_its_opening(alarm, kind):
    """Stock: it ends the wait for the answer. urllib3 makes an error of its own of it here."""
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        answer_no_connect(server)
        alarm(kind("the caller's deadline"), 0.05)
        with pytest.raises((urllib3.exceptions.HTTPError, kind)) as raised:
            pool.request("POST", "/", timeout=10)
        assert "the caller's deadline" in " ".join(map(str, links(raised.value)))
        assert len(server.journal) == 1


@pytest.mark.skipif(urllib3.__version__[0] == "1", reason="urllib3 1.26 has its error in a frame")
@pytest.mark.usefixtures("no_collector")
def test_a_deadline_in_its_opening_leaves_nothing_in_memory(alarm):
    """The copy is in frames of its traceback. A pool's ``urlopen()`` has it in a frame, too."""

    def post(conn):
        alarm(TimeoutError, 0.05)  # an exception itself would be held by the handler
        with pytest.raises(TimeoutError):
            conn.request("POST", "/")
        conn.close()

    with shim(nonidempotent_max_idle_s=0), reused(connection_class=Noted) as (server, pool):
        answer_no_connect(server)
        post(pool._get_conn())
        assert count_noted() == 0


def test_a_socket_that_a_move_leaves_ends_as_in_stock():
    """By a FIN, also where the kernel does not tell what has been acknowledged.

    A connection that another thread has closed takes no other one.
    """
    conn = HTTPConnection("a")
    with shim(), testing.healthy() as pair, socket.socket() as another:
        conn.sock = pair.client
        request = Request(State(conn, FRESH), conn, b"POST / HTTP/1.1", runtime.current)
        with breaks("TCP_INFO", by=lambda _: None):
            assert take(request, socket.socket())
        assert pair.peer.recv(1) == b""
        conn.close()
        assert not take(request, another) and conn.sock is None


def test_a_connection_whose_request_was_acknowledged_ends_as_in_stock():
    """By a FIN; the server may have closed its half alone, and read on."""
    with testing.healthy() as pair:
        pair.client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        pair.peer.recv(100)
        kernel.wait_until(lambda: kernel.unacknowledged_bytes(pair.client) == 0, "an ACK")
        abandon(pair.client)
        assert pair.peer.recv(1) == b""


def test_a_connection_is_closed_whatever_the_kernel_says():
    with testing.healthy() as pair, breaks("TCP_INFO"):
        abandon(pair.client)
        assert pair.client.fileno() < 0


def test_a_forked_child_does_not_keep_the_old_socket_sending():
    """It has the same open file, so that our close is not the last one."""
    with testing.healthy() as pair, pair.client.dup() as of_the_child:
        pair.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                pair.client.send(bytes(1 << 16))
        abandon(pair.client)
        kernel.wait_readable(of_the_child, events=kernel.POLLERR)


def test_an_answer_that_is_sent_on_stays_open():
    """It is the next request's body, on the same connection; a refused tunnel closes its copy."""
    answers = {"tls": TLS(), "default": Respond(200, b"abc")}
    with shim(nonidempotent_max_idle_s=0), proxied(**answers) as way:
        prime(way.pool)
        answer = way.pool.request("GET", "/", preload_content=False, release_conn=True)
        way.server.stop_listening()
        length = {"Content-Length": "3"}
        assert way.pool.request("POST", "/", body=answer, headers=length).status == 200
        assert way.server.journal[-1].body == b"abc"
        assert counters(way.server)["moved"] == {"failed": 1}


def a_move_whose_connect_takes_too_long():
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        answer_no_connect(server)
        assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {"failed": 1}


def test_a_green_connect_that_fails_leaves_nothing_in_memory(call_python):
    assert is_freed_under_eventlet(call_python, a_move_whose_connect_takes_too_long)


def with_own(name, **more):
    """A method that acts on more than the connection."""
    stocks = getattr(HTTPConnection, name)
    own = functools.wraps(stocks)(lambda self: stocks(self))
    return type("Own", (HTTPConnection,), {name: own, **more})


def with_a_hook(name):
    """Set on the connection, and bound to it: a copy's would act on the original's socket."""

    class Hooked(HTTPConnection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            setattr(self, name, getattr(super(), name))

    return Hooked


class Strict(HTTPConnection):
    """Has the attributes that it knows."""

    def __setattr__(self, name, value):
        if "stalepool" in name:
            raise LookupError("of the application")
        super().__setattr__(name, value)


class OpenedByHand(HTTPConnection):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.connect()
        self.auto_open = 0


#: a class; how many sockets it may open, and whether a request rides the second one
CLASSES = {
    # it may acquire, say, what is released at the end, or be handed its socket
    "own connect": (with_own("connect"), 1, False),
    "one of acme.http.client": (with_own("connect", __module__="acme.http.client"), 1, False),
    "own TCP socket": (with_own("_new_conn"), 1, False),
    "own tunnel": (with_own("_tunnel"), 1, False),
    "own attributes": (Strict, 2, True),
    # as botocore has it
    "own close": (with_own("close"), 2, True),
    # as a tracer puts it around urllib3's
    "a wrapped connect": (wrapped_by_a_tracer(HTTPConnection, lambda conn: None), 2, True),
    **{
        "a hook for %s" % name: (with_a_hook(name), 1, False)
        for name in ("connect", "close", "send", "_new_conn", "_tunnel")
    },
    # what it stops is shared with a copy: a helper, a tunnel
    "a finalizer": (type("Own", (HTTPConnection,), {"__del__": lambda self: None}), 1, False),
    "opened by hand": (OpenedByHand, 1, False),
    # the fresh connection is made without asking it for a copy
    "not copied": (type("Own", (HTTPConnection,), {"__reduce_ex__": raises}), 2, True),
}


def assert_sockets(cls, at_most, rides_it, fails=False):
    """Send a POST on a connection of a class, and see on which socket it went out."""
    with shim(nonidempotent_max_idle_s=0), reused(connection_class=cls) as (server, pool):
        assert send(server, pool, "POST")[:4] == (200, True, None, 1)
        assert server.journal[-1].connection == rides_it
        expected = {"idle_setting": int(rides_it), "failed": int(fails)}
        assert counters(server)["moved"] == {name: n for name, n in expected.items() if n}
        assert len(server.journal.connections) <= at_most


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_somebody_else(name):
    assert_sockets(*CLASSES[name])


class Own(OSError):
    """Of the application."""


@pytest.mark.parametrize(
    "error", [Own("x"), socket.timeout("timed out"), ssl.SSLError("x"), CertificateError("x")]
)
def test_a_connector_of_the_applications_that_fails(error, monkeypatch):
    """It is no deadline of the caller's: the old connection stays. Nor is a wrapper's."""
    stock, opened = urllib3.util.connection.create_connection, []

    def connect(*args, **options):
        if opened:
            raise error
        opened.append(stock(*args, **options))
        return opened[0]

    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    assert_sockets(HTTPConnection, 1, rides_it=False, fails=True)


def test_in_another_network_namespace_none_is_opened():
    """There another server may have the address."""
    with breaks("network namespace", by=lambda raw: False):
        assert_sockets(HTTPConnection, 1, rides_it=False)


@pytest.mark.parametrize("name", ["_validate_conn", "_prepare_proxy"])
@pytest.mark.parametrize("cls", [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool])
def test_a_hook_of_the_pools_may_have_been_decorated(name, cls, monkeypatch):
    """As for a pinned certificate, or a proxy's token: no socket that it is for goes without it."""
    monkeypatch.setattr(cls, name, functools.wraps(getattr(cls, name))(lambda *args: None))
    is_for_tls = cls is urllib3.HTTPSConnectionPool
    assert_sockets(HTTPConnection, 1 + is_for_tls, rides_it=is_for_tls)


def pinned_in_one_copy():
    """A pool of the green copy checks more. What a request ends in, and on how many connections."""
    import in_client  # noqa: F401  # quiets eventlet
    import eventlet  # isort: skip

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
        with FaultServer([Respond(), testing.ProcessThenClose()]) as server:
            with copy.connection_from_url(server.url, retries=False, timeout=20.0) as pool:
                assert pool.request("GET", "/").status == 200
                found.append([outcome(pool, "GET"), len(server.journal.connections)])
    return found


def test_where_a_pool_checks_its_connections_none_is_opened_without_it(call_python):
    """Any pool of the same urllib3 may be the connection's; those of another copy are not."""
    (refused, opened), other_copy = call_python(pinned_in_one_copy)
    assert (refused[0], opened) == ("ProtocolError", 1)
    assert other_copy == [200, 2]


def test_a_socket_on_which_no_tunnel_is_made_is_closed():
    """Not by the collector, with a warning: the proxy does not answer in time."""
    with shim(nonidempotent_max_idle_s=0), proxied([Respond()] * 2, tls=TLS("TLSv1.3")) as way:
        assert way.send() == 200
        way.gate._tunnel = lambda channel, _: channel.sock.recv(1)
        assert way.send("POST") == 200
        assert counters(way.origin)["moved"] == {"failed": 1}


SECURED, V6 = TLS("TLSv1.3"), {"family": socket.AF_INET6}
#: through a tunnel, or handed on by the proxy: who speaks TLS, and the family
PROXIES = {
    "CONNECT": {"tls": SECURED},
    "CONNECT, IPv6": {"tls": SECURED, **V6},
    "TLS in TLS": {"tls": SECURED, "proxy_tls": SECURED},
    "http, IPv6": V6,
    "https": {"proxy_tls": SECURED},
}
# of a certificate for an IP address, these cannot tell it in a tunnel or in brackets
if urllib3.__version__ in ("1.26.5", "1.26.6"):
    del PROXIES["CONNECT, IPv6"], PROXIES["TLS in TLS"]


@pytest.mark.parametrize("options", PROXIES.values(), ids=PROXIES)
def test_ends_moves_and_replays_by_every_way(options):
    """A tunnel is counted for the server, whoever is at fault; what is forwarded, for the proxy.

    That says 502 for a server that ends the connection behind it.
    """
    settings = {"nonidempotent_max_idle_s": 0, "replay": "idempotent"}
    with shim(**settings), proxied([*[Respond()] * 7, Close()], **options) as way:
        is_tunnel = "tls" in options
        origin = way.origin
        assert [way.send(), way.send()] == [200, 200]
        if not way.gate.cut():
            (channel,) = way.gate.channels
            channel.tell(channel.close)
        await_arrival(way.pool, events=testing.kernel.POLLRDHUP)  # it has come all the way
        methods = ("GET", "PUT", "POST", "PATCH", "GET", "PUT")
        assert [way.send(method) for method in methods] == [200] * 5 + [200 if is_tunnel else 502]
        assert verdicts(origin) == {"alive": 6, "closed": 1}
        assert counters(origin)["moved"] == {"idle_setting": 2}
        assert counters(origin)["replays"] == ({"ok": 1} if is_tunnel else {})
        assert len(origin.journal.connections) == 4 + is_tunnel
        origins = stalepool.snapshot()["origins"]
        assert way.gate.origin in origins
        assert [name for name in origins if origins[name]["checkouts"]] == [origin.origin]
