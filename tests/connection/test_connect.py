"""A refused connect is tried again for a moment, towards an origin that has answered before."""

import contextlib
import contextvars
import errno
import functools
import gc
import itertools
import os
import socket
import time
from types import SimpleNamespace
from typing import Any, Callable, Dict, NamedTuple, Optional
from unittest.mock import Mock

import pytest
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError

import pools
import stalepool
from errors import links
from freed import is_freed
from outages import WINDOW_S, both, environ_of, outage, window
from pools import UnknownSocket, counters, get, pool_for, pooled_connection, serving, shim, stock
from replay_routes import Route, as_a_new_thread, direct, proxied
from replay_tools import side_by_side
from stalepool import runtime, stats
from stalepool.connection import connect
from stalepool.connection.state import FRESH, State
from stalepool.sockets import keepalive
from stalepool.sockets.layers import layers_of
from stalepool_testing import TLS, Close, FaultServer, Latency, ResetAtNextByte, Respond
from stalepool_testing.connect_proxy import relay
from stalepool_testing.listener import Listener


class Alarm(Exception):
    """As of ``eventlet.Timeout(1, Alarm)``, or of a signal's handler."""


class SocksProxy(Listener):
    """A SOCKS5 proxy without passwords (RFC 1928) that leads to one server, whatever is asked."""

    leads_nowhere = False

    def __init__(self, server):
        self.server = server
        self.asked = []  # addresses
        super().__init__()

    def _serve(self, channel):
        read = channel._take
        read(read(2)[1])  # the methods that it offers
        if self.leads_nowhere:
            return channel.reset()
        channel.send(b"\5\0")
        kind = read(4)[3]
        self.asked.append(read({1: 4, 4: 16}.get(kind) or read(1)[0]))
        read(2)  # the port
        channel.send(b"\5\0\0\1" + bytes(6))
        with socket.create_connection((self.server.host, self.server.port)) as upstream:
            relay(channel, upstream)


@contextlib.contextmanager
def through_socks(script=(), tls=None, **options):
    """A tunnel if the server speaks TLS."""
    pytest.importorskip("socks", reason="SOCKS needs PySocks")
    from urllib3.contrib.socks import SOCKSProxyManager

    options = {"maxsize": 1, "retries": False, "timeout": 10.0, **options}
    with FaultServer(script, tls=tls) as server, SocksProxy(server) as proxy:
        url = "socks5h://%s:%d" % (proxy.host, proxy.port)
        with SOCKSProxyManager(url, ca_certs=tls and tls.ca_path, **options) as manager:
            pool = manager.connection_from_url(server.url)
            yield Route(server, proxy, server, pool, lambda method: pool.request(method, "/"))


ROUTES = {
    "plain": direct,
    "TLS": functools.partial(direct, tls=TLS()),
    "IPv6": functools.partial(direct, family=socket.AF_INET6),
    "proxy": proxied,
    "tunnel": functools.partial(proxied, tls=TLS()),
    "SOCKS": through_socks,
}


def opens(it):
    it.sleeper.after(1, it.way.gate.listen)


def opens_for_a_slow_handshake(it):
    """What is left of the window then is no limit for what comes."""
    it.way.server.add(Latency(WINDOW_S))
    pauses = it.sleeper.pauses
    it.sleeper.act = lambda: it.way.gate.listen() if sum(pauses) > WINDOW_S * 0.5 else None


def connects_raise(error, after=0):
    """From the first one on, to what is open again; or after so many pauses, in the outage."""

    def act(it):
        errors = functools.partial(setattr, it.connects, "act", Mock(side_effect=error))
        if after:
            it.sleeper.after(after, errors)
        else:
            it.way.gate.listen()
            errors()

    return act


def vanishes(it):
    """No answer to a SYN at all: the host has gone after its service."""

    def swallow_syns():
        it.way.gate.listen()
        pools.answer_no_connect(it.way.gate)

    it.sleeper.after(2, swallow_syns)


def resets(it):
    """The server is there and has read something: that is for the caller to judge."""
    it.way.server.add(ResetAtNextByte())
    it.way.gate.listen()


def leads_nowhere(it):
    it.way.gate.leads_nowhere = True
    it.way.gate.listen()


def resets_each_connection(it):
    """Back in vain: that opens no new windows."""
    it.way.is_refused()
    resets(it)
    with pytest.raises(HTTPError):
        it.way.send("GET")
    it.way.gate.stop_listening()


def its_target_alone_has_answered(it):
    pools.forget_what_was_counted()
    with pool_for(it.way.server) as pool:
        assert get(pool) == 200


def was_pooled_before_the_shim_came(it):
    """Its peer has answered this process, whether or not anybody was there to note it."""
    it.way.gate.listen()
    assert pools.in_stock(it.way.send, "GET") == 200
    pools.forget_what_was_counted()
    it.way.shut()
    opens(it)


SAVED, IN_VAIN = {"ok": 1, "windows": 1}, {"failed": 1, "windows": 1}
LONG = {"reconnect_window_s": 60}


class Case(NamedTuple):
    """``act``: what happens in the outage. ``end``: the status, or the class of the error.
    ``told``: of which failed connect that tells. ``waits_s``: so long at most, and half of it at
    least; 0: it is not tried again.
    """

    act: Callable[[Any], Any] = lambda _: None
    route: str = "plain"
    end: Any = 200
    told: Optional[int] = 0
    reconnects: Dict[str, int] = SAVED
    waits_s: Optional[float] = None
    settings: Dict[str, Any] = {}
    options: Dict[str, Any] = {}


in_vain = functools.partial(Case, end=NewConnectionError, reconnects=IN_VAIN)
at_once = functools.partial(in_vain, reconnects={}, waits_s=0.0)

CASES = {
    **{"back by " + route: Case(opens, route) for route in ROUTES},
    "a handshake as the window closes": Case(opens_for_a_slow_handshake, "TLS"),
    "ECONNRESET": Case(connects_raise([OSError(errno.ECONNRESET, ""), None])),
    "ECONNABORTED": Case(connects_raise([OSError(errno.ECONNABORTED, ""), None])),
    "pooled before the shim came": Case(was_pooled_before_the_shim_came),
    # it is not ours to use, and its place not the only one to find the copy's clock in
    "Retry.sleep is a mock": Case(
        lambda it: [it.patched.setattr("urllib3.Retry.sleep", lambda *_: None), opens(it)]
    ),
    "the window is over": in_vain(waits_s=WINDOW_S),
    # a caller in a hurry has another node to go to; the outage is noticed all the same
    "a connect timeout": in_vain(waits_s=1.0, settings=LONG, options={"timeout": 1.0}),
    "in a hurry": at_once(reconnects={"windows": 1}, settings=LONG, options={"timeout": 0.9}),
    "no timeout": in_vain(waits_s=WINDOW_S, options={"timeout": None}),
    "a try that hangs": in_vain(vanishes, options={"timeout": 60}),
    "another failure": in_vain(
        connects_raise(OSError(errno.ENETUNREACH, "Network is unreachable"), after=1), told=-1
    ),
    "a window for each answer": at_once(resets_each_connection, reconnects=IN_VAIN),
    "a reset handshake": at_once(resets, "TLS", end=HTTPError, told=None),
    "SOCKS leads nowhere": at_once(leads_nowhere, "SOCKS", told=None),
    "never answered": at_once(lambda _: pools.forget_what_was_counted()),
    "a proxy never answered": at_once(its_target_alone_has_answered, "SOCKS", told=None),
    "no window": at_once(settings={"reconnect_window_s": 0}),
    "audit": at_once(settings={"mode": "audit"}),
    "nothing to sleep with": at_once(
        lambda it: it.patched.delattr("urllib3.util.retry.time"), reconnects=IN_VAIN
    ),
    # a window of that would be thousands of connects
    "a sleep that takes no time": at_once(
        lambda it: it.patched.setattr(time, "sleep", Mock()), reconnects=IN_VAIN, waits_s=None
    ),
    # what a caller has a timer raise, which has a refusal for its context
    "an alarm": at_once(connects_raise(Alarm), end=Alarm, told=None),
    "an alarm in a pause": in_vain(
        lambda it: it.sleeper.after(1, Mock(side_effect=Alarm)), end=Alarm, told=None
    ),
    "an alarm in a try": in_vain(connects_raise(Alarm, after=1), end=Alarm, told=None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_request_in_an_outage(sleeper, connects, monkeypatch, case):
    """Whatever the method: a refused connect carried no request. It arrives once."""
    with window(**case.settings), ROUTES[case.route](**case.options) as way:
        way.begin_outage()
        conn = pooled_connection(way.pool)
        it = SimpleNamespace(way=way, sleeper=sleeper, connects=connects, patched=monkeypatch)
        case.act(it)
        sleeper.pauses.clear()
        connects.failed.clear()
        began = time.monotonic()
        try:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "of another peer")
        except ConnectionRefusedError:  # no reason for another try
            try:
                assert way.send("POST") == case.end
                conn = pooled_connection(way.pool)
                assert conn.sock.gettimeout() == 10
            except (HTTPError, Alarm) as error:
                assert isinstance(error, case.end)
                assert case.told is None or connects.failed[case.told] in links(error)
        assert time.monotonic() - began < 30
        assert conn.timeout == case.options.get("timeout", 10)  # as before
        assert len(connects.failed) < 20
        assert (case.waits_s == 0) == (not sleeper.pauses)
        if case.waits_s:
            assert case.waits_s / 2 < sum(sleeper.pauses) <= case.waits_s
        assert way.reconnects == case.reconnects
        assert way.server.journal.count(method="POST") == (case.end == 200)


def test_of_an_outage_that_is_over_no_error_is_left_in_memory(sleeper):
    """Not even until the next garbage collection: its traceback holds the connection."""

    def errors():
        return sum(type(each) is NewConnectionError for each in gc.get_objects())

    with outage() as way:
        sleeper.after(1, way.gate.listen)
        gc.collect()
        gc.disable()
        try:
            before = errors()  # other tests' may be held
            assert (way.send(), errors()) == (200, before)
        finally:
            gc.enable()


def test_an_old_connection_that_answers_does_not_end_an_outage(sleeper):
    """Its listener is gone, what it holds lives on: a graceful restart, or a server that drains."""
    with window(), direct() as way, pool_for(way.gate) as new:
        assert get(way.pool) == 200
        way.gate.stop_listening()
        for _ in range(2):
            with pytest.raises(NewConnectionError):
                as_a_new_thread(get, new)
            assert get(way.pool) == 200
        assert way.reconnects == IN_VAIN


def test_a_unix_socket_is_no_peer_of_its_name():
    """All of them are called localhost, pooled before the shim came or since."""
    with serving(family=socket.AF_UNIX) as (_, old), serving(family=socket.AF_UNIX) as (_, new):
        assert pools.in_stock(get, old) == 200
        with shim():
            assert [get(old), get(new)] == [200, 200]
            assert not stats.origin("http://localhost:80").knowledge.has_answered


def test_a_thread_waits_for_one_window(sleeper):
    """All its origins together, for a while: it is one service that asks three that are down.

    And all its tasks, as asyncio and its ``to_thread()`` run them: each has a copied context.
    """
    with window(reconnect_window_s=1), direct() as a, direct() as b, direct() as c:
        for way in (a, b, c):
            way.begin_outage()
        opens(SimpleNamespace(way=a, sleeper=sleeper))

        def ask_all():
            assert a.pool.request("GET", "/").status == 200  # and what is left is for the others
            for way in (b, c):
                with pytest.raises(NewConnectionError):
                    contextvars.copy_context().run(way.pool.request, "GET", "/")

        as_a_new_thread(ask_all)
        assert sum(sleeper.pauses) <= 1
        assert [way.reconnects for way in (a, b, c)] == [SAVED, IN_VAIN, {"windows": 1}]


def test_many_at_once(sleeper):
    """One window for all of them and all their retries, and each POST arrives once."""
    retries = urllib3.Retry(connect=3, backoff_factor=0)  # of each caller's own, on top

    def post():
        try:
            return way.pool.request("POST", "/", retries=retries).status
        except urllib3.exceptions.MaxRetryError as error:
            return type(error.reason)

    with outage(maxsize=8) as way:
        assert side_by_side([post] * 8) == [NewConnectionError] * 8
        # of four tries each, at most the first one has waited
        assert way.reconnects["windows"] == 1
        assert way.reconnects["failed"] <= 8

        way.gate.listen()
        stalepool.install(reconnect_window_s=10)
        way.begin_outage()
        pauses = itertools.count(1)
        sleeper.act = lambda: way.gate.listen() if next(pauses) == 16 else None
        assert side_by_side([post] * 8) == [200] * 8
        assert way.reconnects["windows"] == 2
        assert way.server.journal.count(method="POST") == 8


GREEN_OUTAGES = """
    import json, socket

    import eventlet
    from pools import get, pooled_connection, serving
    from replay_tools import asked, outcome
    from stalepool_testing import kernel

    with serving() as (server, pool):
        assert get(pool) == 200
        server.stop_listening()
        sock = server._sock  # it keeps the port, and nobody accepts from it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.listen()
        assert get(pool) == 200
        pooled_connection(pool).close()
        # runs as soon as the connect yields: it is in the listener's queue by then
        eventlet.spawn_n(kernel.shutdown, sock, socket.SHUT_RDWR)
        eventlet.spawn_after(0.2, server.listen)
        print(json.dumps([outcome(pool, "POST"), asked(server)]))
"""


@both
def test_under_eventlet(run_python, who):
    """The listener closes between SYN and accept: only a green connect comes to see that."""
    found = run_python(GREEN_OUTAGES, world="eventlet", env=environ_of(who))
    reset = ["NewConnectionError", "ConnectionResetError"]
    assert found == ([reset, 0] if who is stock else [200, 1])


def test_the_refusals_before_it_connects_leave_nothing_in_memory(sleeper):
    """urllib3 1.26 keeps each in a frame, which has the caller's below it."""

    def refused_twice():
        with outage() as way:
            sleeper.after(2, way.gate.listen)
            assert way.ask("GET").status == 200

    assert is_freed(refused_twice)


@pytest.mark.skipif(
    urllib3.__version__.startswith("1."), reason="urllib3 1.26 has its error in a frame"
)
def test_an_outage_that_goes_on_leaves_nothing_in_memory():
    """The first error goes to the caller, and its traceback holds our frame.

    Of a connection without a pool: urllib3's retries have it in a frame of theirs.
    """

    def refused():
        with outage() as way, contextlib.suppress(NewConnectionError):
            urllib3.connection.HTTPConnection(way.gate.host, way.gate.port).connect()

    assert is_freed(refused)


def test_a_socket_beside_a_living_one_is_opened_without_a_look_up(connects):
    """TLS has to do with the name all the same: the certificate is checked."""
    options = {"retries": False, "ca_certs": TLS().ca_path}
    with shim(nonidempotent_max_idle_s=0), FaultServer(tls=TLS()) as server:
        with urllib3.HTTPSConnectionPool("localhost", server.port, **options) as pool:
            assert [pool.request("POST", "/").status for _ in range(2)] == [200, 200]
        assert connects.hosts == ["localhost", "127.0.0.1"]
        assert len(server.journal.connections) == 2


def test_no_keepalive_is_armed_towards_who_swallows_probes():
    with shim(), serving() as (server, pool):
        stats.origin(server.origin).knowledge.note_probes_swallowed()
        assert get(pool) == 200
        sock = pooled_connection(pool).sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_once_probes_are_known_to_be_swallowed_no_connection_is_probed_as_often_as_before():
    """Whatever it waits for: keepalive would end it, alive as it is."""
    with shim(), serving(maxsize=2) as (server, pool), serving() as (_, other):
        bare = [urllib3.connection.HTTPConnection(server.host, server.port) for _ in range(2)]
        for conn in bare:
            conn.sock = socket.socket()
            State(conn, FRESH)
        answers = [pool.request("GET", "/", preload_content=False) for _ in range(2)]
        assert get(other) == 200
        conns = [*(answer._connection for answer in answers), pooled_connection(other)]
        bare[0].sock.close()
        os.close(bare[1].sock.fileno())  # behind the back of the socket
        connect.note_probes_swallowed(stats.origin(server.origin), runtime.current)
        bare[1].sock.detach()
        assert [keepalive.read(layers_of(c.sock)).interval_s for c in conns] == [75, 75, 3]
        assert stalepool.snapshot()["fallbacks"] == {"keepalive_failed": 1}


def test_a_socket_of_an_unknown_kind_is_left_alone(monkeypatch, pretend_fork):
    pretend_fork()
    create = urllib3.util.connection.create_connection
    of_unknown_kind = lambda *args, **more: UnknownSocket(create(*args, **more))  # noqa: E731
    monkeypatch.setattr("urllib3.util.connection.create_connection", of_unknown_kind)
    with shim(), serving() as (_, pool):
        assert get(pool) == 200
        assert stalepool.snapshot()["fallbacks"] == {}


def test_a_move_through_socks_asks_for_the_name():
    """Also if the service has the proxy's port: a TLS socket tells the address of the proxy."""
    pytest.importorskip("socks", reason="SOCKS needs PySocks")
    from urllib3.contrib.socks import SOCKSProxyManager

    tls = TLS()
    with shim(nonidempotent_max_idle_s=0), FaultServer(tls=tls) as server, SocksProxy(
        server
    ) as proxy, SOCKSProxyManager(
        "socks5h://%s:%d" % (proxy.host, proxy.port), ca_certs=tls.ca_path
    ) as manager:
        url = "https://localhost:%d/" % proxy.port
        assert [manager.request(method, url).status for method in ("GET", "POST")] == [200] * 2
        assert proxy.asked == [b"localhost"] * 2


@pytest.mark.parametrize("tls", [None, TLS()], ids=["plain", "TLS"])
def test_through_socks(tls):
    """Keepalive from the first request on, which stock lacks; a check; a replay."""
    settings = {"replay": "idempotent", "keepalive_idle_s": 1}
    with shim(**settings), through_socks([Respond()] * 3 + [Close()], tls) as way:
        assert [get(way.pool) for _ in range(3)] == [200] * 3
        sock = pooled_connection(way.pool).sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
        assert counters(way.server)["keepalive_armed"] == 1
        assert pools.verdicts(way.server) == {"alive": 2}
        assert (get(way.pool), len(way.gate.journal.connections)) == (200, 2)
        assert counters(way.server)["replays"] == {"ok": 1}


def test_the_class_of_retries_may_be_decorated():
    """No module's ``time`` but that of a urllib3 is slept with: there is no new try."""
    began = time.monotonic()
    connect._pause(SimpleNamespace(Retry=type("Retry", (), {"get_backoff_time": lambda _: 0})), 60)
    assert time.monotonic() - began < 30


def test_a_limit_is_a_number_none_or_the_sockets_default():
    limits = [3, 2.5, None, urllib3.util.Timeout.DEFAULT_TIMEOUT]
    socket.setdefaulttimeout(7.0)
    try:
        assert [connect.number_of(limit) for limit in limits] == [3.0, 2.5, None, 7.0]
    finally:
        socket.setdefaulttimeout(None)
