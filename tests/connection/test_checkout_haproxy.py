"""A real haproxy with a short ``timeout http-keep-alive``: what it does to idle connections."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from types import SimpleNamespace

import pytest

from pools import (
    await_arrival,
    counters,
    get,
    pool_for,
    pooled_connection,
    shim,
    stock,
    verdicts,
)
from stalepool import stats
from stalepool_testing import TLS, FaultServer, kernel

pytestmark = pytest.mark.haproxy

KEEP_ALIVE_S = 0.3

CONFIG = """
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive {keep_alive_ms}ms

listen balancer
    bind fd@{descriptor} {tls}
    server one 127.0.0.1:{port}
"""


@pytest.fixture
def balance(haproxy_binary, tmp_path):
    """``balance(server, tls)``: a haproxy before a server, in a context manager."""

    @contextlib.contextmanager
    def balance(server, tls):
        config = tmp_path / "haproxy.cfg"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            # it inherits the listening socket: no port to race for, nothing to wait for
            config.write_text(
                CONFIG.format(
                    keep_alive_ms=int(KEEP_ALIVE_S * 1000),
                    descriptor=listener.fileno(),
                    tls="" if tls is None else "ssl crt %s" % tls.cert_path,
                    port=server.port,
                )
            )
            process = subprocess.Popen(
                [haproxy_binary, "-db", "-f", str(config)],
                pass_fds=[listener.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            host, port = listener.getsockname()
            try:
                yield SimpleNamespace(host=host, port=port, family=socket.AF_INET)
            finally:
                process.terminate()
                process.wait(10)

    return balance


@pytest.fixture
def balanced(balance):
    """``balanced(tls)``: server, haproxy and a pool of one connection to that."""

    @contextlib.contextmanager
    def balanced(tls):
        with FaultServer() as server, balance(server, tls) as haproxy, pool_for(
            haproxy, tls
        ) as pool:
            yield server, haproxy, pool

    return balanced


@pytest.fixture(params=[None, "TLSv1.2", "TLSv1.3"], ids=["plain", "tls1.2", "tls1.3"])
def tls(request):
    return None if request.param is None else TLS(request.param)


@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_idle_past_the_keep_alive_timeout(balanced, tls, who):
    with who(), balanced(tls) as (server, haproxy, pool):
        assert [get(pool), get(pool)] == [200, 200]
        first = pooled_connection(pool).sock
        await_arrival(pool, kernel.POLLRDHUP)

        assert get(pool) == 200

        assert pooled_connection(pool).sock is not first
        assert len(server.journal) == 3
        if who is shim:
            assert verdicts(haproxy) == {"alive": 1, "closed": 1}


def test_the_timeout_can_be_read_off_the_counters(balanced, tls):
    """Three connections die of it, each at about the same age."""
    with shim(), balanced(tls) as (_, haproxy, pool):
        for _ in range(3):
            assert get(pool) == 200
            await_arrival(pool, kernel.POLLRDHUP)
        assert get(pool) == 200
        died = counters(haproxy)["died_idle_s"]

    assert sum(died.values()) == 3
    # haproxy wakes up late rather than early, and a busy machine later still
    assert KEEP_ALIVE_S * 0.95 <= min(died) < KEEP_ALIVE_S * stats.BUCKET_RATIO**3
