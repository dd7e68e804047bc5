"""A refused connect is tried again for a moment, towards an origin that has answered before."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import functools
import itertools
import socket
import time
import unittest.mock
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

import pytest
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError

import pools
import stalepool
from errors import links
from gates import Gate
from outages import WINDOW_S, Route, as_a_new_thread, both, direct, environ_of, in_place, outage
from pools import UnknownSocket, counters, get, pool_for, pooled_connection, serving, shim, stock
from replay_routes import proxied
from replay_tools import NO_ANSWER, outcome, side_by_side
from stalepool import stats
from stalepool.connection import connect
from stalepool_testing import TLS, Close, FaultServer, Latency, Respond, kernel, swallow
from worlds import WITH_TESTS


@contextlib.contextmanager
def through_proxy(tls=None) -> Iterator[Route]:
    """The gate is in front of the proxy: a tunnel if the server speaks TLS."""
    with proxied(tls=tls, is_gated=True) as way:
        send = functools.partial(as_a_new_thread, way.send)
        origin = way.front if tls is None else way.server
        yield Route(way.server, way.front, way.pool, send, origin)


ROUTES = {
    "plain": direct,
    "tls": lambda: direct(tls=TLS()),
    "ipv6": lambda: direct(family=socket.AF_INET6),
    "proxy": through_proxy,
    "tunnel": lambda: through_proxy(TLS()),
}


@pytest.mark.parametrize("route", ROUTES)
@both
def test_back_within_the_window(sleeper, who, route):
    """Whatever the method: a refused connect carried no request. It arrives once."""
    with in_place(who), ROUTES[route]() as way:
        way.begin_outage()
        sleeper.after(1, way.gate.open)
        if who is stock:
            with pytest.raises(HTTPError):
                way.send("POST")
            assert sleeper.pauses == []
        else:
            assert way.send("POST") == 200
            assert len(sleeper.pauses) == 1
            assert way.reconnects == {"ok": 1, "windows": 1}
        assert way.server.journal.count(method="POST") == (0 if who is stock else 1)


def test_a_handshake_is_not_pressed_for_time(sleeper):
    """Open again as the window closes: what is left of it is no limit for what comes then."""
    with outage(tls=TLS()) as way:
        sleeper.act = lambda: way.gate.open() if sum(sleeper.pauses) > WINDOW_S * 0.5 else None
        with way.server.add(Latency(WINDOW_S)):
            assert way.send("POST") == 200
        assert pooled_connection(way.pool).timeout == 10
        assert pooled_connection(way.pool).sock.gettimeout() == 10


def reset_each_connection(way, patched):
    """A listener that is back and resets every connection does not open new windows."""
    way.is_refused()
    reset_the_handshake(way, patched)
    with pytest.raises(HTTPError):
        way.send("GET")
    way.gate.shut()


def reset_the_handshake(way, patched):
    """The server was there and has read something: that is for the caller to judge."""
    way.gate.resets = True
    way.gate.open()


class Case(NamedTuple):
    """``act``: what happens in the outage. ``reconnects``: what was counted after the request."""

    act: Callable[..., None] = lambda way, patched: None
    reconnects: Dict[str, int] = {}
    settings: Dict[str, Any] = {}
    error: Any = NewConnectionError


IN_VAIN = {"failed": 1, "windows": 1}
NO_SLEEP = "a sleep that takes no time"
NOT_TRIED_AGAIN = {
    "never answered": Case(),
    "connected, not answered": Case(reset_each_connection, IN_VAIN),
    "a reset handshake": Case(reset_the_handshake, error=HTTPError),
    "no window": Case(settings={"reconnect_window_s": 0}),
    "audit": Case(settings={"mode": "audit"}),
    "nothing to sleep with": Case(
        lambda way, patched: patched.delattr("urllib3.util.retry.time"), IN_VAIN
    ),
    # a window of that would be thousands of connects
    NO_SLEEP: Case(
        lambda way, patched: patched.setattr(time, "sleep", unittest.mock.Mock()), IN_VAIN
    ),
}


@pytest.mark.parametrize("name", NOT_TRIED_AGAIN)
def test_not_tried_again(sleeper, connects, monkeypatch, name):
    case = NOT_TRIED_AGAIN[name]
    tls = TLS() if case.act is reset_the_handshake else None
    with in_place(shim, **case.settings), direct(tls=tls) as way:
        if name == "never answered":
            way.gate.shut()
        else:
            way.begin_outage()
        case.act(way, monkeypatch)
        tries = len(connects.failed) + way.gate.accepted
        sleeper.pauses.clear()
        with pytest.raises(case.error):
            way.send("GET")
        assert len(connects.failed) + way.gate.accepted == tries + 1
        assert len(sleeper.pauses) == (name == NO_SLEEP)
        assert way.reconnects == case.reconnects


def test_the_window_is_over(sleeper, connects):
    """The first error; then failure at once, until it has answered; then a new window."""
    with outage() as way:
        began = time.monotonic()
        error, took_s = way.is_refused("POST"), time.monotonic() - began
        assert connects.failed[0] in links(error)
        assert took_s >= WINDOW_S
        assert len(connects.failed) == 1 + len(sleeper.pauses) > 3
        assert way.reconnects == {"failed": 1, "windows": 1}

        tried, slept = len(connects.failed), len(sleeper.pauses)
        way.is_refused()
        assert (len(connects.failed), len(sleeper.pauses)) == (tried + 1, slept)
        assert way.reconnects == {"failed": 1, "windows": 1}

        way.gate.open()
        way.begin_outage()
        sleeper.pauses.clear()
        sleeper.after(2, way.gate.open)
        assert way.send("POST") == 200
        assert way.reconnects == {"failed": 1, "ok": 1, "windows": 2}
        assert way.server.journal.count(method="POST") == 1


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["kept", "closed"])
def test_an_old_connection_that_answers_does_not_end_an_outage(sleeper, headers):
    """Its listener is gone, what it holds lives on: a graceful restart, or a server that drains."""
    script = [Respond(200), Respond(200, headers=headers)]
    with in_place(shim), direct(script) as way, pool_for(way.gate) as new:
        assert get(way.pool) == 200
        way.gate.stop_listening()
        with pytest.raises(NewConnectionError):
            as_a_new_thread(get, new)
        assert get(way.pool) == 200
        with pytest.raises(NewConnectionError):
            as_a_new_thread(get, new)
        assert way.reconnects == {"failed": 1, "windows": 1}


@pytest.mark.parametrize(
    "timeout, window_s, limit_s, waits",
    [(1.0, 60, 1.0, True), (0.9, 60, 0.9, False), (None, WINDOW_S, WINDOW_S, True)],
)
def test_never_past_the_connect_timeout(sleeper, connects, timeout, window_s, limit_s, waits):
    """A caller in a hurry has another node to go to; the outage is noticed all the same."""
    with outage(window_s=window_s, timeout=timeout) as way:
        error = way.is_refused("POST")
        assert connects.failed[0] in links(error)
        assert (sum(sleeper.pauses) > limit_s / 2, len(connects.failed) > 1) == (waits, waits)
        assert sum(sleeper.pauses) <= limit_s
        assert way.reconnects == ({"failed": 1, "windows": 1} if waits else {"windows": 1})


def test_a_try_that_hangs_does_not_outlast_the_window(sleeper, connects):
    """Refused, then no answer to a SYN at all: the host has gone after its service."""
    with outage(timeout=60) as way:

        def vanish():
            way.gate.open()
            swallow(way.gate.listener)

        sleeper.after(2, vanish)
        began = time.monotonic()
        error = way.is_refused("POST")
        assert connects.failed[0] in links(error)
        assert time.monotonic() - began < 30
        assert isinstance(connects.failed[-1], socket.timeout)
        assert way.reconnects == {"failed": 1, "windows": 1}


def test_another_failure_is_told_at_once(sleeper, connects):
    def unreachable():
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    with outage() as way:
        sleeper.after(1, lambda: setattr(connects, "act", unreachable))
        assert "Network is unreachable" in str(way.is_refused())
        assert len(sleeper.pauses) == 1
        assert way.reconnects == {"failed": 1, "windows": 1}


@pytest.mark.parametrize("is_older", [False, True], ids=["pooled since", "pooled before"])
def test_a_unix_socket_is_no_peer_of_its_name(is_older):
    """All of them are called localhost."""
    with serving(family=socket.AF_UNIX) as (_, pool):
        if is_older:
            with stock():
                assert get(pool) == 200
        with in_place(shim):
            assert get(pool) == 200
        assert not stats.origin("http://localhost:80").knowledge.has_answered


def test_a_thread_waits_for_one_window(sleeper):
    """All its origins together, for a while: it is one service that asks three that are down.

    And all its tasks, as asyncio and its ``to_thread()`` run them: each has a copied context.
    """
    with in_place(shim), direct() as a, direct() as b, direct() as c:
        for way in (a, b, c):
            way.begin_outage()

        def ask_all():
            for way in (a, b, c):
                with pytest.raises(NewConnectionError):
                    contextvars.copy_context().run(way.pool.request, "GET", "/")

        as_a_new_thread(ask_all)
        assert sum(sleeper.pauses) <= WINDOW_S
        assert a.reconnects == {"failed": 1, "windows": 1}
        assert b.reconnects == c.reconnects == {"windows": 1}


def test_what_is_left_of_a_threads_window_serves_the_next_origin(sleeper):
    with in_place(shim, reconnect_window_s=2), direct() as a, direct() as b:
        a.begin_outage()
        b.begin_outage()

        def ask_both():
            sleeper.after(1, a.gate.open)
            assert a.pool.request("POST", "/").status == 200
            sleeper.pauses.clear()
            sleeper.after(1, b.gate.open)
            assert b.pool.request("POST", "/").status == 200

        as_a_new_thread(ask_both)
        assert a.reconnects == b.reconnects == {"ok": 1, "windows": 1}


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

        way.gate.open()
        stalepool.install(reconnect_window_s=10)
        way.begin_outage()
        pauses = itertools.count(1)
        sleeper.act = lambda: way.gate.open() if next(pauses) == 16 else None
        assert side_by_side([post] * 8) == [200] * 8
        assert way.reconnects["windows"] == 2
        assert way.server.journal.count(method="POST", processed=True) == 8
        assert way.server.journal.count(method="POST") == 8


TWO_COPIES = """
    import json

    import in_client  # quiets eventlet
    import eventlet, stalepool, urllib3
    from gates import Gate
    from stalepool_testing import FaultServer

    stalepool.install(reconnect_window_s=0.5)
    ticks, found = [], []

    def tick():
        while True:
            ticks.append(eventlet.sleep(0.01))

    def wait_in(copy):
        with copy.connection_from_url(gate.url, retries=False) as pool:
            assert pool.request("GET", "/").status == 200
            gate.shut()
            del ticks[:]
            try:
                pool.request("POST", "/")
            except copy.exceptions.NewConnectionError:
                found.append(len(ticks))  # how often others ran meanwhile
        gate.open()

    eventlet.spawn_n(tick)
    with FaultServer() as server, Gate(server) as gate:
        for copy in (eventlet.import_patched("urllib3"), urllib3):
            eventlet.spawn(wait_in, copy).wait()
    print(json.dumps([found, stalepool.snapshot()["totals"]["reconnects"]]))
"""


@pytest.mark.full
def test_each_copy_of_urllib3_sleeps_in_its_own_way(run_python):
    """eventlet's ``import_patched`` in an unpatched process: one copy yields, the other sleeps."""
    (green, native), reconnects = run_python(TWO_COPIES, env=WITH_TESTS)
    assert 10 < green < 200
    assert native == 0
    assert reconnects == {"failed": 2, "windows": 2}


def test_a_socket_of_an_unknown_kind_is_left_alone(monkeypatch):
    connect = urllib3.util.connection.create_connection
    monkeypatch.setattr(
        urllib3.util.connection,
        "create_connection",
        lambda *args, **options: UnknownSocket(connect(*args, **options)),
    )
    with shim(), serving() as (_, pool):
        assert get(pool) == 200
        assert "keepalive_failed" not in stalepool.snapshot()["fallbacks"]


GREEN_OUTAGES = """
    import json

    from worlds import enter
    enter("eventlet")
    import eventlet, stalepool
    from gates import Gate
    from pools import get, pool_for, pooled_connection
    from replay_tools import asked, outcome
    from stalepool_testing import FaultServer

    with FaultServer() as server, Gate(server) as gate, pool_for(gate) as pool:
        assert get(pool) == 200
        pooled_connection(pool).close()
        # runs as soon as the connect yields: it is in the listener's queue by then
        eventlet.spawn_n(gate.shut)
        eventlet.spawn_after(0.2, gate.open)
        found = [outcome(pool, "POST"), asked(server)]
        if stalepool.is_installed():
            stalepool.install(reconnect_window_s=60)
            gate.shut()
            try:
                with eventlet.Timeout(0.3):
                    get(pool)
            except eventlet.Timeout:
                gate.open()
                found.append(get(pool))
    print(json.dumps(found))
"""


@both
def test_under_eventlet(run_python, who):
    """The listener closes between SYN and accept: only a green connect comes to see that.

    eventlet's own timeout ends a pause.
    """
    found = run_python(GREEN_OUTAGES, env=environ_of(who))
    reset = ["NewConnectionError", "ConnectionResetError"]
    assert found == ([reset, 0] if who is stock else [200, 1, 200])


@pytest.mark.parametrize("name", ["ECONNRESET", "ECONNABORTED"])
def test_what_a_connect_says_of_a_restart(sleeper, connects, name):
    with in_place(shim), direct() as way:
        assert way.send("GET") == 200
        pooled_connection(way.pool).close()
        errors = [OSError(getattr(errno, name), "said so")]

        def refuse():
            if errors:
                raise errors.pop()

        connects.act = refuse
        assert way.send("POST") == 200
        assert way.reconnects == {"ok": 1, "windows": 1}


def test_a_socket_beside_a_living_one_is_opened_without_a_look_up(connects):
    with shim(nonidempotent_max_idle_s=0), FaultServer() as server:
        with urllib3.HTTPConnectionPool("localhost", server.port, retries=False) as pool:
            assert [pool.request("POST", "/").status for _ in range(2)] == [200, 200]
        assert connects.hosts == ["localhost", "127.0.0.1"]
        assert len(server.journal.connections) == 2


def test_no_keepalive_is_armed_towards_who_swallows_probes():
    with shim(), serving() as (server, pool):
        stats.origin(server.origin).knowledge.note_probes_swallowed()
        assert pool.request("GET", "/").status == 200
        sock = pooled_connection(pool).sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


@pytest.mark.parametrize("stand_in", [time.sleep, lambda *args: None])
def test_the_sleep_of_retries_is_mocked(sleeper, monkeypatch, stand_in):
    """It is not ours to use, and its place not the only one to find the copy's clock in."""
    monkeypatch.setattr(urllib3.util.retry.Retry, "sleep", stand_in)
    with outage() as way:
        sleeper.after(1, way.gate.open)
        assert way.send("GET") == 200
        assert len(sleeper.pauses) == 1


def test_the_class_of_retries_is_mocked():
    began = time.monotonic()
    connect._pause(unittest.mock.Mock(), 60)
    assert time.monotonic() - began < 30


class Alarm(Exception):
    """What a caller has a timer raise: ``eventlet.Timeout(1, Alarm)``, or a signal's handler."""


@pytest.mark.parametrize("at", ["the first try", "a pause", "a try", "the last try"])
def test_a_timer_goes_off_while_the_caller_handles_a_refusal(sleeper, connects, at):
    """Python makes the one the context of the other, which is no reason for another try."""

    def ring():
        time.sleep(WINDOW_S if at == "the last try" else 0)
        raise Alarm

    def set_alarm():
        connects.act = ring

    with outage() as way:
        conn, is_first = pooled_connection(way.pool), at == "the first try"
        sleeper.after(1, ring if at == "a pause" else set_alarm)
        if is_first:
            set_alarm()
        with pytest.raises(Alarm) as raised:
            try:
                raise ConnectionRefusedError(111, "of another peer")
            except ConnectionRefusedError:
                way.send("GET")
        assert "of another peer" in str(raised.value.__context__)
        assert conn.timeout == 10
        assert len(sleeper.pauses) == (0 if is_first else 1)
        assert way.reconnects == ({} if is_first else {"failed": 1, "windows": 1})


@pytest.mark.parametrize("answers", [0, 1])
def test_a_connection_pooled_before_the_shim_came(sleeper, answers):
    """Its peer has answered this process, whether or not anybody was there to note it."""
    with direct() as way:
        with stock():
            assert way.send("GET") == 200
        with in_place(shim):
            for _ in range(answers):
                assert way.send("GET") == 200
            way.shut()
            sleeper.after(1, way.gate.open)
            assert way.send("POST") == 200
            assert way.reconnects == {"ok": 1, "windows": 1}
        assert way.gate.accepted == 2


def test_pauses_grow_and_are_jittered():
    ends = time.monotonic() + 60
    runs = [list(itertools.islice(connect._pauses(ends), 8)) for _ in range(2)]
    assert runs[0] != runs[1]
    for number, pauses in enumerate(zip(*runs)):
        longest_s = min(0.05 * 2**number, 0.5)
        assert all(longest_s / 2 <= pause_s <= longest_s for pause_s in pauses)


def test_a_limit_is_a_number_none_or_the_sockets_default():
    limits = [3, 2.5, None, urllib3.util.Timeout.DEFAULT_TIMEOUT]
    socket.setdefaulttimeout(7.0)
    try:
        assert [connect.number_of(limit) for limit in limits] == [3.0, 2.5, None, 7.0]
    finally:
        socket.setdefaulttimeout(None)


#: what PySocks raises stands between urllib3's error and the kernel's
REFUSED = ["NewConnectionError", "ProxyConnectionError"]
WHO = {"stock": stock, "shim": lambda: shim(replay="idempotent", keepalive_idle_s=1)}


class SocksProxy(Gate):
    """A SOCKS5 proxy without passwords (RFC 1928) that leads to one server, whatever is asked."""

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        def read(size: int) -> bytes:
            return client.recv(size, socket.MSG_WAITALL)

        with contextlib.suppress(OSError, IndexError):  # the client has gone
            read(read(2)[1])  # the methods that it offers
            if self.resets:
                kernel.reset(client)
                return server.close()
            client.sendall(b"\5\0")
            kind = read(4)[3]
            read(({1: 4, 4: 16}.get(kind) or read(1)[0]) + 2)
            client.sendall(b"\5\0\0\1" + bytes(6))
        super()._relay(client, server)


@contextlib.contextmanager
def through_socks(script: Any = (), tls: Optional[TLS] = None) -> Iterator[Tuple]:
    """A server, a proxy before it, and a pool of one connection through that."""
    pytest.importorskip("socks", reason="SOCKS needs PySocks")
    from urllib3.contrib.socks import SOCKSProxyManager

    options = {"maxsize": 1, "retries": False, "timeout": 10.0}
    with FaultServer(script, tls=tls) as server, SocksProxy(server) as proxy:
        url = "socks5h://%s:%d" % (proxy.host, proxy.port)
        with SOCKSProxyManager(url, ca_certs=tls and tls.ca_path, **options) as manager:
            yield server, proxy, manager.connection_from_url(server.url)


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request):
    return TLS() if request.param else None


def test_keepalive_at_the_first_request(tls):
    """Stock sets none. And the connection is kept, as in stock."""
    with WHO["shim"](), through_socks(tls=tls) as (server, proxy, pool):
        assert [get(pool) for _ in range(3)] == [200] * 3
        sock = pooled_connection(pool).sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
        assert counters(server)["keepalive_armed"] == 1
        assert proxy.accepted == 1
        assert pools.verdicts(server) == {"alive": 2}


@pytest.mark.parametrize("who, end", [("stock", NO_ANSWER), ("shim", 200)])
def test_a_fin_as_the_request_arrives(tls, who, end):
    """Stock: the error."""
    with WHO[who](), through_socks([Respond(200), Close()], tls) as (server, proxy, pool):
        assert get(pool) == 200
        assert outcome(pool, "GET") == end
        if who == "shim":
            assert counters(server)["replays"] == {"ok": 1}
            assert proxy.accepted == 2


def test_a_proxy_that_never_answered_is_not_waited_for():
    """Its target has answered, by another way."""
    with WHO["shim"](), through_socks() as (server, proxy, pool), pool_for(server) as direct:
        assert get(direct) == 200
        proxy.shut()
        assert as_a_new_thread(outcome, pool, "GET") == REFUSED
        assert counters(server)["reconnects"] == {}


def test_a_proxy_that_resets_is_not_waited_for():
    """It listens, and will not lead to this target; waiting changes nothing of that."""
    with WHO["shim"](), through_socks() as (server, proxy, pool):
        assert get(pool) == 200
        pooled_connection(pool).close()
        proxy.resets = True
        assert as_a_new_thread(outcome, pool, "GET")[0] == "NewConnectionError"
        assert counters(server)["reconnects"] == {}


@pytest.mark.parametrize("who, end", [("stock", REFUSED), ("shim", 200)])
def test_a_proxy_that_is_restarted(sleeper, who, end):
    """Stock: the connect is refused, and that is the caller's error."""
    with WHO[who](), through_socks() as (server, proxy, pool):
        assert get(pool) == 200
        proxy.shut()
        sleeper.after(1, proxy.open)
        assert as_a_new_thread(outcome, pool, "GET") == end
        if who == "shim":
            assert counters(server)["reconnects"] == {"windows": 1, "ok": 1}
