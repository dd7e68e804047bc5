"""TLS talks to itself while the connection idles: what must be kept, and what must not."""

from __future__ import annotations

import warnings

import pytest
import urllib3

import stalepool_testing as testing
from pools import await_arrival, get, serving, shim, verdicts
from replay_tools import side_by_side
from stalepool_testing import into_pool
from worlds import WITH_TESTS


@pytest.fixture
def openssl():
    """A TLS 1.3 connection to ``openssl s_server``, which has sent a KeyUpdate already."""
    try:
        pair = testing.key_update()
    except testing.Unavailable as reason:
        pytest.skip(str(reason))
    with pair:
        yield pair


def answer(terminal):
    """What ``s_server``'s terminal says comes from the client; what is typed there goes to it."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += terminal.recv(65536)
    terminal.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize("command", [b"k\n", b"K\n"], ids=["update", "update-and-ask-for-one"])
def test_key_updates(openssl, command):
    """Each makes a healthy connection readable: at the full check, then at the fast one."""
    with shim(), serving(tls="TLSv1.3") as (server, pool):
        into_pool(pool, openssl.client)
        for _ in range(3):
            assert side_by_side([lambda: get(pool), lambda: answer(openssl.peer)]) == [200, None]
            openssl.peer.sendall(command)
            await_arrival(pool)
        assert verdicts(server) == {"alive": 3}
        assert len(server.journal.connections) == 0


PYOPENSSL = """
    import io, json, sys, warnings
    from worlds import enter
    io.DEFAULT_BUFFER_SIZE = 8192  # as before Python 3.14: what is read at a time
    if "eventlet" in sys.argv:
        enter("eventlet")
    with warnings.catch_warnings():  # urllib3 1.26 and cryptography on old Pythons
        warnings.simplefilter("ignore")
        from urllib3.contrib import pyopenssl
        pyopenssl.inject_into_urllib3()
    from pools import await_arrival, counters, get, pooled_connection, serving
    from pools import shim, stock, verdicts
    from replay_tools import reused, send
    from stalepool_testing import (
        Close, CloseAfter, ProcessThenClose, Reset, Respond, SurplusWithAnswer, TLS,
    )

    def idle(tls):
        script = [
            Respond(200), Respond(200), CloseAfter(0),
            Respond(200), SurplusWithAnswer(surplus_status=404),
        ]
        with serving(script, tls=tls) as (server, pool):
            statuses = [get(pool), get(pool)]
            kind = type(pooled_connection(pool).sock).__name__
            server.wait_idle_step()
            await_arrival(pool)
            statuses += [get(pool), get(pool), get(pool)]
            return [kind, statuses, len(server.journal.connections), verdicts(server)]

    def replays(method, step, tls):
        with shim(replay="idempotent"), reused(step, tls=tls) as (server, pool):
            status, counted = send(server, pool, method).status, counters(server)
            return [status, counted["replays"], counted["replays_refused"]]

    def lost(who, tls):
        with who, reused(ProcessThenClose(), tls=tls) as (server, pool):
            return type(send(server, pool, "POST").error).__name__

    said = []
    for version in ("TLSv1.2", "TLSv1.3"):
        tls = TLS(version)
        with stock():
            stock_said = idle(tls)
        with shim():
            shim_said = idle(tls)
        steps = [Close(), Close(close_notify=True), Reset()]
        is_green = "eventlet" in sys.argv
        again = [] if is_green else [replays("PUT", step, tls) for step in steps]
        said.append([stock_said, shim_said, again, [lost(stock(), tls), lost(shim(), tls)]])
    print(json.dumps(said))
"""


def cannot_connect_twice():
    with warnings.catch_warnings():  # cryptography on old Pythons
        warnings.simplefilter("ignore")
        import OpenSSL
    return urllib3.__version__.startswith("1.") and int(OpenSSL.__version__.split(".")[0]) >= 25


@pytest.mark.skipif(
    cannot_connect_twice(),
    reason="urllib3 1.26 changes a context after its first connection, which pyOpenSSL 25 refuses",
)
@pytest.mark.parametrize("world", ["threads", "eventlet"])
def test_pyopenssl_in_place_of_ssl(run_python, world):
    """``urllib3.contrib.pyopenssl``; stock takes the surplus in its buffer for an answer, too.

    A request that met the end of a connection, in pyOpenSSL's own words, is sent again. With
    threads only: a green process does not end after that, with urllib3 1.26. One that is not sent
    again has stock's error: a second read at the end is an SSLError, after which urllib3's Retry
    sends a POST, too.
    """
    # 1.26's WrappedSocket leaves its socket to the collector if a file is open, in stock, too
    flags = ["-Wignore::ResourceWarning"] if urllib3.__version__.startswith("1.") else []
    for in_stock, ours, replays, lost in run_python(PYOPENSSL, world, env=WITH_TESTS, flags=flags):
        assert in_stock == ["WrappedSocket", [200, 200, 200, 200, 404], 2, {}]
        seen = {"alive": 2, "closed": 1, "tls_pending": 1}
        assert ours == ["WrappedSocket", [200] * 5, 3, seen]
        assert replays == ([[200, {"ok": 1}, {}]] * 3 if world == "threads" else [])
        assert lost == ["ProtocolError"] * 2
