"""What others do while a refused connect is tried again: mocks, timers, forks, other peers."""

from __future__ import annotations

import errno
import itertools
import socket
import time
import unittest.mock

import pytest
import urllib3

import stalepool
from breaks import breaks
from outages import WINDOW_S, direct, environ_of, in_place, outage
from pools import pooled_connection, serving, shim, stock
from stalepool import stats
from stalepool.connection import connect
from stalepool_testing import FaultServer


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


def test_peers_beyond_those_that_are_told_apart_are_never_waited_for():
    """Peers come and go, each at an address of its own: memory is bounded, and as in stock then."""
    with in_place(shim, reconnect_window_s=0.05), direct() as a, direct() as b, direct() as c:
        others = len(stalepool.snapshot()["origins"])
        with breaks("number of origins", by=others + 2):
            for way in (a, b, c):
                assert way.send("GET") == 200
            for way in (a, b, c):
                way.shut()
                way.is_refused()
        assert [way.reconnects.get("windows") for way in (a, b, c)] == [1, 1, None]
        # the third shares its entry
        assert len(stalepool.snapshot()["origins"]) == others + 3


FORKED = """
    import contextvars, json, os

    import urllib3
    import stalepool
    from gates import Gate
    from stalepool_testing import FaultServer

    stalepool.install(reconnect_window_s=0.3)

    def windows():
        "How many there have been in this process, after two more requests in vain."
        for _ in range(2):
            with urllib3.connection_from_url(gate.url, retries=False, timeout=10) as pool:
                try:
                    contextvars.Context().run(pool.request, "POST", "/")
                except urllib3.exceptions.NewConnectionError:
                    continue
            raise AssertionError("it is shut")
        return stalepool.snapshot()["totals"]["reconnects"].get("windows", 0)

    with FaultServer() as server, Gate(server) as gate:
        with urllib3.connection_from_url(gate.url) as pool:
            assert pool.request("GET", "/").status == 200
        gate.shut()
        found = [windows()]
        child = os.fork()
        if child == 0:
            os._exit(windows())
        found += [os.waitpid(child, 0)[1], windows()]
    print(json.dumps(found))
"""


def test_a_child_waits_for_no_peer_of_its_parents(run_python):
    """It has answered another process: children forked one after another would each wait."""
    assert run_python(FORKED, env=environ_of(shim)) == [1, 0, 1]


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
