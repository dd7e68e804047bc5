"""A refused connect is tried again for a moment, towards an origin that has answered before."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import importlib.util
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator

import pytest
import requests
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util import Timeout

import stalepool
from gates import Gate, remote_control
from outages import (
    WINDOW_S,
    Route,
    as_a_new_thread,
    both,
    direct,
    environ_of,
    in_place,
)
from pools import UnknownSocket, counters, get, pool_for, pooled_connection, shim, stock
from stalepool_testing import TLS, ConnectProxy, FaultServer, Respond, swallow
from worlds import WITH_TESTS


@contextlib.contextmanager
def through_proxy(tls=None) -> Iterator[Route]:
    """The gate is in front of the proxy: a tunnel if the server speaks TLS."""
    ca_certs = None if tls is None else tls.ca_path
    with FaultServer(tls=tls) as server, ConnectProxy() as proxy, Gate(proxy) as gate:
        with urllib3.ProxyManager(gate.url, ca_certs=ca_certs, retries=False, timeout=10) as client:
            pool = client.connection_from_url(server.url)
            yield Route(
                server,
                gate,
                pool,
                lambda method: as_a_new_thread(client.request, method, server.url).status,
                gate if tls is None else server,
            )


@contextlib.contextmanager
def through_requests() -> Iterator[Route]:
    with FaultServer() as server, Gate(server) as gate, requests.Session() as session:
        session.trust_env = False

        def send(method):
            return as_a_new_thread(session.request, method, gate.url, timeout=10).status_code

        assert send("GET") == 200
        pools = session.get_adapter(gate.url).poolmanager.pools
        (key,) = pools.keys()
        yield Route(server, gate, pools[key], send, gate)


ROUTES = {
    "plain": direct,
    "tls": lambda: direct(TLS()),
    "ipv6": lambda: direct(family=socket.AF_INET6),
    "proxy": through_proxy,
    "tunnel": lambda: through_proxy(TLS()),
    "requests": through_requests,
}


@pytest.fixture
def refusals(monkeypatch):
    """The errors with which connects failed, in order."""
    failed = []
    connection = urllib3.util.connection
    stock_create = connection.create_connection

    def create_connection(*args, **kwargs):
        try:
            return stock_create(*args, **kwargs)
        except OSError as error:
            failed.append(error)
            raise

    monkeypatch.setattr(connection, "create_connection", create_connection)
    return failed


def is_made_from(error, cause):
    """Whether a client library made the one error from the other, however many steps away."""
    seen = []
    while error is not None and error is not cause and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__ or getattr(error, "reason", None)
    return error is cause


# -- back within the window ------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@both
def test_back_within_the_window(sleeper, who, route):
    """Whatever the method: a refused connect carried no request. It arrives once."""
    with in_place(who), ROUTES[route]() as way:
        way.begin_outage()
        sleeper.after(1, way.gate.open)
        if who is stock:
            with pytest.raises((HTTPError, requests.ConnectionError)):
                way.send("POST")
            assert sleeper.pauses == []
        else:
            assert way.send("POST") == 200
            assert len(sleeper.pauses) == 1
            assert way.reconnects == {"ok": 1, "windows": 1}
        assert way.server.journal.count(method="POST") == (0 if who is stock else 1)


def test_the_connection_is_not_closed_in_between(sleeper, monkeypatch):
    """On urllib3 2.x ``close()`` forgets the tunnel: the ClientHello would go to the proxy."""
    closed = []
    stock_close = urllib3.connection.HTTPConnection.close
    with in_place(shim), through_proxy(TLS()) as way:
        way.begin_outage()
        monkeypatch.setattr(
            urllib3.connection.HTTPConnection,
            "close",
            lambda self: (closed.append(len(sleeper.pauses)), stock_close(self))[1],
        )
        sleeper.after(3, way.gate.open)
        assert way.send("POST") == 200
    assert len(sleeper.pauses) == 3
    assert closed[0] == 0  # as it was found dead
    assert {1, 2}.isdisjoint(closed)


def test_a_handshake_is_not_pressed_for_time(sleeper):
    """Open again as the window closes: what is left of it is no limit for what comes then."""
    with in_place(shim), direct(TLS()) as way:
        way.begin_outage()
        way.gate.delay_s = WINDOW_S

        def open_late():
            if sum(sleeper.pauses) > WINDOW_S * 0.5:
                way.gate.open()

        sleeper.act = open_late
        assert way.send("POST") == 200
        assert pooled_connection(way.pool).timeout == 10
        assert pooled_connection(way.pool).sock.gettimeout() == 10


# -- never, not at once, not any more --------------------------------------------------------------


def test_never_answered(sleeper):
    with in_place(shim), direct() as way:
        way.gate.shut()
        with pytest.raises(NewConnectionError):
            way.send("GET")
        assert sleeper.pauses == []
        assert way.reconnects == {}


def test_the_window_is_over(sleeper, refusals):
    """The first error; then failure at once, until it has answered; then a new window."""
    with in_place(shim), direct() as way:
        way.begin_outage()
        began = time.monotonic()
        with pytest.raises(NewConnectionError) as first:
            way.send("POST")
        took_s = time.monotonic() - began
        assert is_made_from(first.value, refusals[0])
        assert took_s >= WINDOW_S
        assert len(refusals) == 1 + len(sleeper.pauses) > 3
        assert way.reconnects == {"failed": 1, "windows": 1}

        tried, slept = len(refusals), len(sleeper.pauses)
        with pytest.raises(NewConnectionError):
            way.send("GET")
        assert (len(refusals), len(sleeper.pauses)) == (tried + 1, slept)
        assert way.reconnects == {"failed": 1, "windows": 1}

        way.gate.open()
        way.begin_outage()
        sleeper.pauses.clear()
        sleeper.after(2, way.gate.open)
        assert way.send("POST") == 200
        assert way.reconnects == {"failed": 1, "ok": 1, "windows": 2}
        assert way.server.journal.count(method="POST") == 1


def test_connected_is_not_answered(sleeper):
    """A listener that is back and resets every connection does not open new windows."""
    with in_place(shim), direct() as way:
        way.begin_outage()
        with pytest.raises(NewConnectionError):
            way.send("GET")
        way.gate.resets = True
        way.gate.open()
        with pytest.raises(HTTPError):
            way.send("GET")
        way.gate.shut()
        sleeper.pauses.clear()
        with pytest.raises(NewConnectionError):
            way.send("GET")
        assert sleeper.pauses == []
        assert way.reconnects == {"failed": 1, "windows": 1}


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["kept", "closed"])
def test_an_old_connection_that_answers_does_not_end_an_outage(sleeper, headers):
    """Its listener is gone, what it holds lives on: a graceful restart, or a server that drains."""
    script = [Respond(200), Respond(200, headers=headers)]
    with in_place(shim), FaultServer(script) as server, Gate(server) as gate:
        with pool_for(gate) as old, pool_for(gate) as new:
            assert get(old) == 200
            gate.stop_listening()
            with pytest.raises(NewConnectionError):
                as_a_new_thread(get, new)
            assert get(old) == 200
            with pytest.raises(NewConnectionError):
                as_a_new_thread(get, new)
            assert counters(gate)["reconnects"] == {"failed": 1, "windows": 1}


@pytest.mark.parametrize("settings", [{"reconnect_window_s": 0}, {"mode": "audit"}], ids=str)
def test_switched_off(sleeper, refusals, settings):
    with in_place(shim, **settings), direct() as way:
        way.begin_outage()
        with pytest.raises(NewConnectionError):
            way.send("GET")
        assert sleeper.pauses == []
        assert len(refusals) == 1
        assert way.reconnects == {}


def limits_of(limit_s):
    """Ways to say how long a connect may take; the last one is the socket module's default."""
    return [limit_s, Timeout(connect=limit_s, read=10), Timeout(total=limit_s), Timeout()]


def side_by_side_in_vain(limit_s, sleeper):
    """A POST in an outage with each such limit: its error, the pauses, and what was counted."""
    limits = limits_of(limit_s)

    def wait(way, limit):
        with pytest.raises(NewConnectionError) as caught:
            way.pool.request("POST", "/", timeout=limit)
        return caught.value, sleeper.pauses, way.reconnects

    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(len(limits)))
        stack.enter_context(in_place(shim, reconnect_window_s=60))
        ways = [stack.enter_context(direct()) for _ in limits]
        for way in ways:
            way.begin_outage()
        socket.setdefaulttimeout(limit_s)
        try:
            return list(executor.map(wait, ways, limits))
        finally:
            socket.setdefaulttimeout(None)


def test_never_past_the_connect_timeout(sleeper, refusals):
    for error, pauses, reconnects in side_by_side_in_vain(1.0, sleeper):
        assert len(pauses) > 2
        assert sum(pauses) <= 1.0
        assert any(is_made_from(error, refusal) for refusal in refusals)
        assert reconnects == {"failed": 1, "windows": 1}


def test_a_caller_in_a_hurry_does_not_wait(sleeper, refusals):
    """It has another node to go to; the outage is noticed all the same."""
    for error, pauses, reconnects in side_by_side_in_vain(0.9, sleeper):
        assert pauses == []
        assert any(is_made_from(error, refusal) for refusal in refusals)
        assert reconnects == {"windows": 1}
    assert len(refusals) == 4


def test_without_a_connect_timeout_the_window_is_the_limit(sleeper):
    with in_place(shim), direct(timeout=None) as way:
        way.begin_outage()
        with pytest.raises(NewConnectionError):
            way.send("POST")
        assert WINDOW_S / 2 < sum(sleeper.pauses) <= WINDOW_S


def test_a_try_that_hangs_does_not_outlast_the_window(sleeper, refusals):
    """Refused, then no answer to a SYN at all: the host has gone after its service."""
    with in_place(shim), direct(timeout=60) as way:
        way.begin_outage()

        def vanish():
            way.gate.open()
            swallow(way.gate.listener)

        sleeper.after(2, vanish)
        began = time.monotonic()
        with pytest.raises(NewConnectionError) as caught:
            way.send("POST")
        assert time.monotonic() - began < 30
        assert is_made_from(caught.value, refusals[0])
        assert isinstance(refusals[-1], socket.timeout)
        assert way.reconnects == {"failed": 1, "windows": 1}


def test_another_failure_is_told_at_once(sleeper, monkeypatch):
    with in_place(shim), direct() as way:
        way.begin_outage()

        def lose_the_network():
            def unreachable(*args, **kwargs):
                raise OSError(errno.ENETUNREACH, "Network is unreachable")

            monkeypatch.setattr(urllib3.util.connection, "create_connection", unreachable)

        sleeper.after(1, lose_the_network)
        with pytest.raises(NewConnectionError, match="Network is unreachable"):
            way.send("GET")
        assert len(sleeper.pauses) == 1
        assert way.reconnects == {"failed": 1, "windows": 1}


def test_a_reset_handshake_is_not_tried_again(sleeper):
    """The server was there and has read something: that is for the caller to judge."""
    with in_place(shim), direct(TLS()) as way:
        way.begin_outage()
        way.gate.resets = True
        way.gate.open()
        accepted = way.gate.accepted
        with pytest.raises(HTTPError):
            way.send("GET")
        assert way.gate.accepted == accepted + 1
        assert sleeper.pauses == []
        assert way.reconnects == {}


def test_one_peer_is_not_another(sleeper):
    """That one origin has answered, or has had its window, says nothing of the next."""
    with in_place(shim), direct() as first, direct() as second:
        first.begin_outage()
        with pytest.raises(NewConnectionError):
            first.send("GET")
        second.begin_outage()
        sleeper.pauses.clear()
        sleeper.after(2, second.gate.open)
        assert second.send("GET") == 200
        assert first.reconnects == {"failed": 1, "windows": 1}
        assert second.reconnects == {"ok": 1, "windows": 1}


@pytest.mark.parametrize("in_tasks", [False, True])
def test_a_thread_waits_for_one_window(sleeper, in_tasks):
    """All its origins together, for a while: it is one service that asks three that are down."""
    with in_place(shim), direct() as a, direct() as b, direct() as c:
        for way in (a, b, c):
            way.begin_outage()

        def ask_all():
            for way in (a, b, c):
                with pytest.raises(NewConnectionError):
                    if in_tasks:  # of asyncio, or by its to_thread(): each has a copied context
                        contextvars.copy_context().run(way.pool.request, "GET", "/")
                    else:
                        way.pool.request("GET", "/")

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


def test_an_interrupted_pause_leaves_the_connection_as_it_was(sleeper):
    class Interrupted(BaseException):
        pass

    def interrupt():
        raise Interrupted

    with in_place(shim), direct() as way:
        way.begin_outage()
        conn = pooled_connection(way.pool)
        sleeper.after(2, interrupt)
        with pytest.raises(Interrupted):
            way.send("GET")
        assert conn.timeout == 10
        assert way.reconnects == {"failed": 1, "windows": 1}


# -- many at once, in every world ------------------------------------------------------------------


FIFTY = """
    import json, sys, threading, time

    from worlds import enter
    world, url, control = sys.argv[1:]
    if world != "threads":
        enter(world)

    import urllib3
    import stalepool
    if stalepool.is_installed():
        stalepool.install(reconnect_window_s=1.0)

    # each caller has retries of its own, on top
    retries = urllib3.Retry(connect=3, backoff_factor=0)
    pool = urllib3.connection_from_url(url, maxsize=50, timeout=10, retries=retries)
    gate = urllib3.PoolManager()

    def work(what):
        assert gate.request("GET", control + what).status == 200

    def side_by_side(other=lambda ends: None):
        "Fifty POSTs: how they ended, how long that took, and how often others ran meanwhile."
        ends, ticks, done = [], [], threading.Event()

        def post():
            try:
                ends.append(pool.request("POST", "/", body=b"x").status)
            except urllib3.exceptions.MaxRetryError as error:
                ends.append(type(error.reason).__name__)

        def tick():
            while not done.is_set():
                ticks.append(time.sleep(0.01))

        began = time.monotonic()
        threads = [threading.Thread(target=post) for _ in range(50)]
        threads.append(threading.Thread(target=other, args=(ends,)))
        ticking = threading.Thread(target=tick)
        for thread in [ticking, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - began
        done.set()
        ticking.join()
        return sorted(set(ends), key=str), len(ends), took_s, len(ticks)

    def open_again(ends):
        "When all have failed, as stock does; when all have waited for a while, else."
        waits_until = time.monotonic() + 0.3
        while len(ends) < 50 and not (stalepool.is_installed() and time.monotonic() > waits_until):
            time.sleep(0.01)
        work("open")

    def reconnects():
        return stalepool.snapshot()["totals"]["reconnects"]

    found = {}
    assert pool.request("GET", "/").status == 200
    work("shut")
    found["dead"] = side_by_side(), reconnects()
    work("open")
    assert pool.request("GET", "/").status == 200
    work("shut")
    if stalepool.is_installed():
        stalepool.install(reconnect_window_s=10)
    found["restarted"] = side_by_side(open_again), reconnects()
    pool.close()
    gate.clear()
    print(json.dumps(found))
"""


def fifty_in(world, who, run_python):
    """What fifty clients in a process of their own found, and how many POSTs were acted on."""
    with FaultServer() as server, Gate(server) as gate, remote_control(gate) as control:
        found = run_python(FIFTY, world, gate.url, control, env=environ_of(who))
        executed = server.journal.count(method="POST", processed=True)
        assert executed == server.journal.count(method="POST")
    return found, executed


@pytest.mark.full
@both
def test_fifty_at_once(run_python, who):
    """One window for all of them and all their retries; meanwhile everybody else goes on."""
    green = [world for world in ("eventlet", "gevent") if importlib.util.find_spec(world)]
    worlds = ["threads", *green]
    with ThreadPoolExecutor(len(worlds)) as executor:
        seen = executor.map(lambda world: fifty_in(world, who, run_python), worlds)
    for world, (found, executed) in zip(worlds, seen):
        where = (world, found, executed)
        (dead, windows), (restarted, windows_then) = found["dead"], found["restarted"]
        assert dead[:2] == [["NewConnectionError"], 50], where
        if who is stock:
            assert restarted[:2] == [["NewConnectionError"], 50], where
            assert executed == 0, where
            assert windows_then == {}, where
            continue
        # of four tries each, at most the first one has waited
        assert windows["windows"] == 1, where
        assert windows["failed"] <= 50, where
        assert dead[2] >= 1.0, where
        assert dead[3] > 20, where
        assert restarted[:2] == [[200], 50], where
        assert restarted[3] > 5, where
        assert executed == 50, where
        assert windows_then["windows"] == 2, where


TWO_COPIES = """
    import json, sys, time

    import in_client  # quiets eventlet
    import eventlet
    import urllib3
    import stalepool
    stalepool.install(reconnect_window_s=0.5)
    green = eventlet.import_patched("urllib3")
    assert green.connectionpool is not urllib3.connectionpool

    url, control = sys.argv[1:]
    gate = urllib3.PoolManager()
    ticks = []

    def tick():
        while True:
            eventlet.sleep(0.01)
            ticks.append(1)

    def wait_in(copy):
        "How long a request of this copy waits in an outage, and how often others ran meanwhile."
        pool = copy.connection_from_url(url, retries=False, timeout=10)
        assert pool.request("GET", "/").status == 200
        gate.request("GET", control + "shut")
        began, ticked = time.monotonic(), len(ticks)
        try:
            pool.request("POST", "/")
        except copy.exceptions.NewConnectionError:
            pass
        else:
            raise AssertionError("it is shut")
        took = time.monotonic() - began, len(ticks) - ticked
        gate.request("GET", control + "open")
        pool.close()
        return took

    eventlet.spawn_n(tick)
    eventlet.sleep(0.05)
    found = [eventlet.spawn(wait_in, copy).wait() for copy in (green, urllib3)]
    gate.clear()
    print(json.dumps(found))
"""


def test_a_socket_of_an_unknown_kind_is_left_alone(monkeypatch):
    connect = urllib3.util.connection.create_connection
    monkeypatch.setattr(
        urllib3.util.connection,
        "create_connection",
        lambda *args, **options: UnknownSocket(connect(*args, **options)),
    )
    with shim(), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        assert "keepalive_failed" not in stalepool.snapshot()["fallbacks"]


@pytest.mark.full
def test_each_copy_of_urllib3_sleeps_in_its_own_way(run_python):
    """eventlet's ``import_patched`` in an unpatched process: one copy yields, the other sleeps."""
    with FaultServer() as server, Gate(server) as gate, remote_control(gate) as control:
        green, native = run_python(TWO_COPIES, gate.url, control, env=WITH_TESTS)
    assert green[0] >= 0.5
    assert green[1] > 10
    assert native[0] >= 0.5
    assert native[1] == 0


GREEN_OUTAGES = """
    import errno, json

    from worlds import enter
    enter("eventlet")
    import eventlet, stalepool, urllib3
    from gates import Gate
    from stalepool_testing import FaultServer

    def reset_while_connecting():
        with urllib3.connection_from_url(gate.url, retries=False) as known:
            assert known.request("GET", "/").status == 200
        with urllib3.connection_from_url(gate.url, retries=False) as pool:
            # runs as soon as the connect yields: it is in the listener's queue by then
            eventlet.spawn_n(gate.shut)
            eventlet.spawn_after(0.2, gate.open)
            try:
                return pool.request("POST", "/").status
            except urllib3.exceptions.NewConnectionError as error:
                return "ECONNRESET" if str(errno.ECONNRESET) in str(error) else str(error)

    def timed_out():
        stalepool.install(reconnect_window_s=60)
        with urllib3.connection_from_url(gate.url, retries=False) as pool:
            assert pool.request("GET", "/").status == 200
            gate.shut()
            try:
                with eventlet.Timeout(0.3):
                    pool.request("GET", "/")
            except eventlet.Timeout:
                gate.open()
                return pool.request("GET", "/").status

    with FaultServer() as server, Gate(server) as gate:
        found = [reset_while_connecting(), server.journal.count(method="POST")]
        if stalepool.is_installed():
            found.append(eventlet.spawn(timed_out).wait())
    print(json.dumps(found))
"""


@both
def test_under_eventlet(run_python, who):
    """The listener closes between SYN and accept: only a green connect comes to see that.

    eventlet's own timeout ends a pause.
    """
    found = run_python(GREEN_OUTAGES, env=environ_of(who))
    assert found == (["ECONNRESET", 0] if who is stock else [200, 1, 200])
