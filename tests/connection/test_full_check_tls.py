"""TLS talks to itself while the connection idles: what must be kept, and what must not.

Each kind of TLS socket in each dead state is in ``test_checkout``.
"""

from __future__ import annotations

import threading
import warnings

import pytest
import urllib3

import stalepool_testing as testing
from pools import await_arrival, get, serving, shim, stock, verdicts
from stalepool_testing import TLS, into_pool
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


def answer_one_request(terminal):
    """What ``s_server``'s terminal says comes from the client; what is typed there goes to it."""

    def answer():
        said = b""
        while b"\r\n\r\n" not in said:
            said += terminal.recv(65536)
        terminal.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize("command", [b"k\n", b"K\n"], ids=["update", "update-and-ask-for-one"])
def test_key_updates(openssl, command):
    """Each makes a healthy connection readable: at the full check, then at the fast one."""
    tls = TLS("TLSv1.3")
    with shim(), serving(tls=tls) as (server, pool):
        into_pool(pool, openssl.client)
        for _ in range(3):
            answering = answer_one_request(openssl.peer)
            assert get(pool) == 200
            answering.join(10)
            openssl.peer.sendall(command)
            await_arrival(pool)
        assert verdicts(server) == {"alive": 3}
        assert len(server.journal.connections) == 0


def test_stock_throws_a_connection_away_for_a_key_update(openssl):
    tls = TLS("TLSv1.3")
    with stock(), serving(tls=tls) as (server, pool):
        into_pool(pool, openssl.client)
        assert get(pool) == 200
        assert len(server.journal.connections) == 1


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
    from pools import await_arrival, get, pooled_connection, serving, shim, stock, verdicts
    from stalepool_testing import CloseAfter, Respond, SurplusWithAnswer, TLS
    said = {}
    for who in stock, shim:
        script = [
            Respond(200), Respond(200), CloseAfter(0),
            Respond(200), SurplusWithAnswer(surplus_status=404),
        ]
        tls = TLS(sys.argv[1])
        with who(), serving(script, tls=tls) as (server, pool):
            statuses = [get(pool), get(pool)]
            kind = type(pooled_connection(pool).sock).__name__
            server.wait_idle_step()
            await_arrival(pool)
            statuses += [get(pool), get(pool), get(pool)]
            said[who.__name__] = [kind, statuses, len(server.journal.connections), verdicts(server)]
    print(json.dumps(said))
"""


def cannot_connect_twice():
    with warnings.catch_warnings():  # cryptography on old Pythons
        warnings.simplefilter("ignore")
        import OpenSSL
    return urllib3.__version__.startswith("1.") and int(OpenSSL.__version__.split(".")[0]) >= 25


connects_twice = pytest.mark.skipif(
    cannot_connect_twice(),
    reason="urllib3 1.26 changes a context after its first connection, which pyOpenSSL 25 refuses",
)


@pytest.mark.each_value
@connects_twice
@pytest.mark.parametrize("world", ["threads", "eventlet"])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_pyopenssl_in_place_of_ssl(run_python, version, world):
    """``urllib3.contrib.pyopenssl``; stock takes the surplus in its buffer for an answer, too."""
    said = run_python(PYOPENSSL, version, world, env=WITH_TESTS)

    assert said["stock"] == ["WrappedSocket", [200, 200, 200, 200, 404], 2, {}]
    seen = {"alive": 2, "closed": 1, "tls_pending": 1}
    assert said["shim"] == ["WrappedSocket", [200] * 5, 3, seen]


PYOPENSSL_REPLAY = """
    import json, sys, warnings
    with warnings.catch_warnings():  # urllib3 1.26 and cryptography on old Pythons
        warnings.simplefilter("ignore")
        from urllib3.contrib import pyopenssl
        pyopenssl.inject_into_urllib3()
    from pools import counters, shim
    from replay_tools import reused, send
    from stalepool_testing import TLS, Close, Reset

    STEPS = {"FIN": Close(), "close_notify": Close(close_notify=True), "RST": Reset()}
    said = {}
    for name, step in STEPS.items():
        for method in ("GET", "PUT", "POST"):
            tls = TLS(sys.argv[1])
            with shim(replay="idempotent"), reused(step, tls=tls) as (server, pool):
                outcome = send(server, pool, method)
                counted = counters(server)
                said[name + " " + method] = [
                    outcome.status,
                    sum(counted.get("replays", {}).values()),
                    counted.get("replays_refused", {}),
                ]
    print(json.dumps(said))
"""


@connects_twice
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_pyopenssls_words_for_the_end_of_a_connection(run_python, version):
    """A request that met it is sent again."""
    # 1.26's WrappedSocket leaves its socket to the collector if a file is open, in stock, too
    flags = ["-Wignore::ResourceWarning"] if urllib3.__version__.startswith("1.") else []
    said = run_python(PYOPENSSL_REPLAY, version, env=WITH_TESTS, flags=flags)
    for met, outcome in said.items():
        expected = [None, 0, {"method": 1}] if "POST" in met else [200, 1, {}]
        assert outcome == expected, (met, said)
