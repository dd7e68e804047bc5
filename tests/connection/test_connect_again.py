"""A refused connect is tried again for a moment, towards an origin that has answered before."""

import contextlib
import contextvars
import errno
import functools
import itertools
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
from pools import both, environ_of, get, pool_for, pooled_connection, serving, shim, stock
from replay_routes import WINDOW_S, as_a_new_thread, direct, outage, proxied, through_socks, window
from replay_tools import asked, outcome, side_by_side
from stalepool import stats
from stalepool.connection import connect
from stalepool_testing import TLS, Latency, ResetAtNextByte, kernel


class Alarm(Exception):
    """As of ``eventlet.Timeout(1, Alarm)``, or of a signal's handler."""


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


back = functools.partial(Case, settings=LONG)  # on a busy machine, too
in_vain = functools.partial(Case, end=NewConnectionError, reconnects=IN_VAIN)
at_once = functools.partial(in_vain, reconnects={}, waits_s=0.0)

CASES = {
    **{"back by " + route: back(opens, route) for route in ROUTES},
    "a handshake as the window closes": Case(opens_for_a_slow_handshake, "TLS"),
    "ECONNRESET": back(connects_raise([OSError(errno.ECONNRESET, ""), None])),
    "ECONNABORTED": back(connects_raise([OSError(errno.ECONNABORTED, ""), None])),
    # it is not ours to use, and its place not the only one to find the copy's clock in
    "Retry.sleep is a mock": back(
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
        spent_s = time.monotonic() - began
        assert spent_s < 30
        assert conn.timeout == case.options.get("timeout", 10)  # as before
        assert len(connects.failed) < 20
        assert (case.waits_s == 0) == (not sleeper.pauses)
        if case.waits_s:
            assert case.waits_s / 2 < spent_s and sum(sleeper.pauses) <= case.waits_s
        assert way.reconnects == case.reconnects
        assert way.server.journal.count(method="POST") == (case.end == 200)


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
    """All of them are called localhost."""
    with shim(), serving(family=socket.AF_UNIX) as (_, pool):
        assert get(pool) == 200
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


def post_while_the_listener_closes():
    """It closes between SYN and accept: only a green connect comes to see that."""
    import eventlet

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
        return [outcome(pool, "POST"), asked(server)]


@both
def test_under_eventlet(call_python, who):
    found = call_python(post_while_the_listener_closes, world="eventlet", env=environ_of(who))
    reset = ["NewConnectionError", "ConnectionResetError"]
    assert found == ([reset, 0] if who is stock else [200, 1])


def test_the_refusals_before_it_connects_leave_nothing_in_memory(sleeper):
    """urllib3 1.26 keeps each in a frame, which has the caller's below it."""

    def refused_twice():
        with outage() as way:
            sleeper.after(2, way.gate.listen)
            assert way.ask("GET").status == 200

    assert is_freed(refused_twice)


@pytest.mark.skipif(urllib3.__version__[0] == "1", reason="urllib3 1.26 has its error in a frame")
def test_an_outage_that_goes_on_leaves_nothing_in_memory():
    """The first error goes to the caller, and its traceback holds our frame.

    Of a connection without a pool: urllib3's retries have it in a frame of theirs.
    """

    def refused():
        with outage() as way, contextlib.suppress(NewConnectionError):
            as_a_new_thread(urllib3.connection.HTTPConnection(way.gate.host, way.gate.port).connect)
        assert way.reconnects == IN_VAIN

    assert is_freed(refused)


def test_the_class_of_retries_may_be_decorated():
    """No module's ``time`` but that of a urllib3 is slept with: there is no new try."""
    began = time.monotonic()
    connect.pause(SimpleNamespace(Retry=type("Retry", (), {"get_backoff_time": lambda _: 0})), 60)
    assert time.monotonic() - began < 30
