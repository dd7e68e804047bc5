"""What is held of a request: its bytes while they may be needed, and nothing after that."""

from __future__ import annotations

import gc
import re
import socket
import threading
import tracemalloc
from pathlib import Path
from typing import Any, Iterator

import pytest
import urllib3

from breaks import breaks
from pools import pooled_connection, serving, shim
from replay_tools import reused
from stalepool.clock import monotonic
from stalepool.connection import state
from stalepool_testing import FaultServer, Respond, Silence

MB = 1 << 20
#: the package's files, without stalepool_testing's
OURS = str(Path(state.__file__).parent.parent / "*")


def recorded() -> int:
    """Bytes of requests that are on record, whether their connections are gone or not."""
    requests = [each for each in gc.get_objects() if type(each) is state.Request]
    return sum(sum(map(len, each.sent)) for each in requests)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_failed_request_leaves_no_body_behind(method: str) -> None:
    """Stock: nothing is left, either."""
    with shim(replay="idempotent"), reused(Silence()) as (_server, pool):
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            pool.request(method, "/", body=b"x" * (MB // 2), timeout=0.3)
        assert recorded() < MB // 8


class Sink:
    """A server that keeps nothing of what it reads; answers each request once it has it all."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        channel, _ = self.listener.accept()
        buffer = bytearray(1 << 16)
        with self.listener, channel:
            while True:
                head = channel.recv(4096)
                if not head:
                    return
                top, _, rest = head.partition(b"\r\n\r\n")
                left = int(re.search(rb"ength: (\d+)", top)[1]) - len(rest)  # type: ignore[index]
                while left > 0:
                    left -= channel.recv_into(buffer)
                channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def test_a_large_body_is_not_copied() -> None:
    """Stock: sent as it is. A second one of its size may be more than a container has."""
    sink, body = Sink(), bytearray(32 * MB)
    with shim(replay="idempotent"):
        with urllib3.HTTPConnectionPool("127.0.0.1", sink.port, retries=False) as pool:
            for method in ("POST", "PUT"):
                tracemalloc.start()
                assert pool.request(method, "/", body=memoryview(body)).status == 200
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak < 4 * MB, (method, peak)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_stream_in_chunks_is_not_recorded(method: str) -> None:
    """It would never be sent again."""
    held = []

    def body(conn: Any) -> Iterator[bytes]:
        for _ in range(100):
            yield b"0123456789"
        found = state.find(conn.sock)
        assert found is not None and found.request is not None
        held.append(sum(map(len, found.request.sent)))

    with shim(replay="idempotent"), reused(Respond(200)) as (_server, pool):
        conn = pooled_connection(pool)
        assert pool.request(method, "/", body=body(conn)).status == 200
    assert held and held[0] < 500


def test_a_pooled_connection_holds_less_than_a_kilobyte() -> None:
    """What the lines of the package have allocated, and hold after two requests on each."""
    with shim(replay="idempotent"), serving(maxsize=60) as (_, pool):

        def held() -> int:
            found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, OURS)])
            return sum(trace.size for trace in found.traces)

        def use(count: int) -> None:
            taken = [pool._get_conn() for _ in range(count)]
            for conn in taken:
                for _ in range(2):
                    _checked(conn)
            for conn in taken:
                pool._put_conn(conn)

        tracemalloc.start()
        use(10)
        before = held()
        use(60)
        assert 0 < (held() - before) / 50 < 1000
        tracemalloc.stop()


def test_records_of_failed_requests_are_kept_until_the_next_sweep() -> None:
    """Bodies of uploads raise, and then hardly a new connection is opened."""

    class Fails(Exception):
        pass

    def body() -> Iterator[bytes]:
        yield bytes(MB // 2)
        raise Fails

    with shim(replay="idempotent"), FaultServer() as server:
        at = server.host, server.port
        conns = [urllib3.connection.HTTPConnection(*at, timeout=20.0) for _ in range(10)]
        for conn in conns:
            _checked(conn)
            with pytest.raises(Fails):
                conn.request("PUT", "/", body=body(), headers={"Content-Length": str(MB)})
        for conn in conns:
            conn.close()
        with breaks("clock of the states", lambda: monotonic() + 60):
            _idle(conn)
        conn.close()
        assert recorded() < MB


# -- what is dropped, in each phase ----------------------------------------------------------------


def _idle(conn: Any) -> None:
    conn.request("GET", "/")
    conn.getresponse().read()


def _checked(conn: Any) -> None:
    _idle(conn)
    assert not urllib3.connectionpool.is_connection_dropped(conn)


def _sending(conn: Any) -> None:
    _checked(conn)
    conn.request("PUT", "/", body=b"x")


def _waiting(conn: Any) -> None:
    """As a request that timed out leaves it, before a pool has closed it."""
    _checked(conn)
    conn.timeout = 0.1
    conn.sock.settimeout(0.1)
    conn.request("GET", "/silence")
    with pytest.raises(OSError, match="timed out"):
        conn.getresponse()


def _upgraded(conn: Any) -> None:
    conn.request("GET", "/upgrade")
    conn.getresponse()


def _answer(request: Any) -> Any:
    if request.path == "/upgrade":
        return Respond(101, headers={"Connection": "Upgrade", "Upgrade": "tcp"})
    return Silence() if request.path == "/silence" else Respond()


#: phase -> what brings a connection into it
PHASES = {
    state.IDLE: _idle,
    state.CHECKED: _checked,
    state.SENDING: _sending,
    state.WAITING: _waiting,
    state.UPGRADED: _upgraded,
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("phase", PHASES)
def test_a_connection_that_is_dropped_is_gone_in_every_phase(phase: str) -> None:
    """Its descriptor is closed at once; its state is the next thing to be swept."""
    with shim(replay="idempotent"), FaultServer(_answer) as server:
        gc.freeze()  # all there was before need not be looked at
        conn = urllib3.connection.HTTPConnection(server.host, server.port, timeout=20.0)
        PHASES[phase](conn)
        found = state.find(conn.sock)
        assert found is not None and found.phase is phase
        sock = found.sock
        del conn
        gc.collect()
        gc.unfreeze()
        assert sock() is None
        server.wait_ended()
        state._sweep()
        assert found not in state._states.values()
        assert found.request is None or found.request.conn() is None
