"""Which connections have a state, and how long it and its request are held."""

import os
import socket
import tracemalloc
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import stalepool
from breaks import breaks
from pools import counters, get, pool_for, pooled_connection, serving, shim
from replay_tools import recorded, reset_after_checkout, reused, side_by_side
from stalepool import runtime
from stalepool.clock import monotonic
from stalepool.connection import state
from stalepool.connection.state import FRESH, Request
from stalepool.settings import Settings
from stalepool.sockets import keepalive
from stalepool.sockets.layers import layers_of
from stalepool_testing import CloseAfter, Respond, Silence, healthy, into_pool, kernel

MB = 1 << 20


def _idle(conn):
    conn.request("GET", "/")
    conn.getresponse().read()


def _checked(conn):
    _idle(conn)
    assert not urllib3.connectionpool.is_connection_dropped(conn)


def _sending(conn):
    _checked(conn)
    conn.request("PUT", "/", body=b"x")


def _ended(conn):
    _idle(conn)
    kernel.wait_readable(conn.sock)
    assert urllib3.connectionpool.is_connection_dropped(conn)


UPGRADED = Respond(101, headers={"Connection": "Upgrade", "Upgrade": "tcp"})
#: a phase, what brings a connection into it, and how a server answers
PHASES = {
    "idle": (state.IDLE, _idle, [Respond()]),
    "checked": (state.CHECKED, _checked, [Respond()]),
    "sending": (state.SENDING, _sending, [Respond()]),
    "upgraded": (state.UPGRADED, _idle, [UPGRADED]),
    "ended": (state.IDLE, _ended, [Respond(), CloseAfter(0)]),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("phase, enter, script", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("version", [None, "TLSv1.3"])
def test_a_connection_that_is_let_go_is_gone(phase, enter, script, version):
    """With its socket, also where the response class is kept on it (botocore)."""
    with shim(replay="idempotent"), serving(script, tls=version) as (_, pool):
        conn = pool._new_conn()
        conn.response_class = conn.response_class
        enter(conn)
        found = state.find(conn.sock)
        assert found.phase is phase
        kept, descriptor = weakref.ref(conn), conn.sock.fileno()
        del conn
        assert (kept(), found.sock()) == (None, None)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        state._sweep()
        assert found not in state._states.values()
        assert found.request is None  # which refers to it, and must not wait for the collector


def test_a_pooled_connection_holds_less_than_a_kilobyte():
    """What the lines of the package have allocated, and hold after two requests on each."""
    ours = tracemalloc.Filter(True, str(Path(state.__file__).parent.parent / "*"))

    def use(count):
        taken = [pool._get_conn() for _ in range(count)]
        for conn in taken:
            for _ in range(2):
                _checked(conn)
        for conn in taken:
            pool._put_conn(conn)
        return sum(each.size for each in tracemalloc.take_snapshot().filter_traces([ours]).traces)

    with shim(replay="idempotent"), serving(maxsize=60) as (_, pool):
        tracemalloc.start()
        before = use(10)
        assert 0 < (use(60) - before) / 50 < 1000
        tracemalloc.stop()


def test_once_probes_are_known_to_be_swallowed_no_connection_is_probed_as_often_as_before():
    """Whatever it waits for: keepalive would end it, alive as it is. And a new one not at all."""
    with shim(falls_back=True), serving(maxsize=2) as (server, pool), serving() as (_, other):
        bare = [urllib3.connection.HTTPConnection(server.host, server.port) for _ in range(2)]
        for conn in bare:
            conn.sock = socket.socket()
            of_the_origin = state.State(conn, FRESH)
        answers = [pool.request("GET", "/", preload_content=False) for _ in range(2)]
        assert get(other) == 200
        conns = [*(answer._connection for answer in answers), pooled_connection(other)]
        bare[0].sock.close()
        os.close(bare[1].sock.fileno())  # behind the back of the socket
        of_the_origin.note_probes_swallowed(runtime.current)
        bare[1].sock.detach()
        assert [keepalive.read(layers_of(c.sock)).interval_s for c in conns] == [75, 75, 3]
        with pool_for(server) as new:
            assert get(new) == 200
            sock = pooled_connection(new).sock
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert stalepool.snapshot()["fallbacks"] == {"keepalive_failed": 1}


# -- requests: what each holds, and no longer than it is needed ------------------------------------


@pytest.mark.usefixtures("no_collector")
def test_a_request_goes_when_another_socket_gets_the_same_id():
    with shim(replay="idempotent"), serving([Respond()]) as (_, pool):
        conn, other = pool._new_conn(), pool._new_conn()
        _sending(conn)
        other.connect()
        gone = weakref.ref(state.find(conn.sock).request)
        state._states[id(other.sock)] = state._states.pop(id(conn.sock))
        conn.close()
        assert gone() is not None
        state.State(other, FRESH)
        assert gone() is None
        other.close()


def test_records_of_failed_requests_are_kept_until_the_next_sweep():
    """Bodies of uploads raise, and then hardly a new connection is opened."""

    def body():
        yield bytes(MB // 2)
        raise LookupError("of the application")

    with shim(replay="idempotent"), serving() as (_, pool):
        conns = [pool._new_conn() for _ in range(10)]
        for conn in conns:
            _checked(conn)
            with pytest.raises(LookupError):
                conn.request("PUT", "/", body=body(), headers={"Content-Length": str(MB)})
        for conn in conns:
            conn.close()
        with breaks("clock of the states", lambda: monotonic() + 60):
            _idle(conn)
        conn.close()
        assert recorded() < MB


def test_of_large_first_bytes_nothing_is_kept():
    """What follows a hijacked answer is no request."""
    fresh = SimpleNamespace(phase=FRESH)
    request = Request(fresh, HTTPConnection("127.0.0.1"), bytes(MB + 1), Settings())
    assert request.sent == [b""] and not request.is_recorded
    assert request.left_s is None  # no limit


def test_audit_counts_the_bytes_of_a_body_and_keeps_none():
    """For the number of requests that active would have sent once more."""
    request = Request(
        SimpleNamespace(phase=FRESH), HTTPConnection("a"), b"head", Settings(mode="audit")
    )
    request.record(bytes(MB // 2))
    assert (request.sent, request.size) == ([b"head", b""], 4 + MB // 2)


def test_a_failed_request_leaves_no_body_behind():
    with shim(replay="idempotent"), reused(Silence()) as (_server, pool):
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            pool.request("PUT", "/", body=bytes(MB // 2), timeout=0.3)
        assert recorded() < MB // 8


@pytest.mark.usefixtures("no_collector")
def test_a_send_that_failed_and_was_repeated_leaves_none_behind():
    """Not even until the next garbage collection: the send's error has a traceback."""
    with shim(replay="idempotent"), reused() as (server, pool):
        reset_after_checkout(server, pool)
        assert pool.request("PUT", "/", body=bytes(MB // 2)).stalepool_replayed
        assert recorded() < MB // 8
        assert counters(server)["replays"] == {"ok": 1}


def test_a_large_body_is_not_copied():
    """Stock: sent as it is. A second one of its size may be more than a container has."""
    body, buffer = bytearray(32 * MB), bytearray(1 << 16)

    def serve():
        """Keep nothing of what is read."""
        left = len(body) - len(pair.peer.recv(4096).partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= pair.peer.recv_into(buffer)
        pair.peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with shim(replay="idempotent"), healthy() as pair:
        with urllib3.HTTPConnectionPool("127.0.0.1", 1, retries=False) as pool:
            into_pool(pool, pair.client)
            for method in ("POST", "PUT"):
                tracemalloc.start()
                side_by_side([serve, lambda m=method: pool.request(m, "/", body=memoryview(body))])
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak < 4 * MB, (method, peak)
