"""Real urllib3 pools against real servers, with the shim and without it."""

import contextlib
import socket
from time import monotonic

import pytest
import urllib3

import stalepool
from stalepool import fallback, stats
from stalepool.connection import state
from stalepool.sockets import tcp_info
from stalepool.sockets.layers import layers_of
from stalepool_testing import TLS, CloseAfter, FaultServer, kernel, swallow

#: what comes after the checkout would make up for what it missed
CHECKOUT_ALONE = {"replay": "off", "presend_check": False, "nonidempotent_max_idle_s": "off"}
#: as stalepool's own settings have it
DEFAULTS = {"replay": "idempotent", "presend_check": True, "nonidempotent_max_idle_s": "auto"}
#: all that may act on a request
EVERYTHING = {"replay": "idempotent", "presend_check": True, "nonidempotent_max_idle_s": 1}


def forget_what_was_counted():
    """Counters at zero, and nothing learnt of any origin."""
    stats._origins.clear()
    fallback.forget()


@contextlib.contextmanager
def stock():
    assert stalepool.uninstall() == []
    try:
        yield
    finally:
        stalepool.install()


def in_stock(call, *args):
    """What a function returns without the shim."""
    with stock():
        return call(*args)


@contextlib.contextmanager
def shim(falls_back=False, **settings):
    """With the shim, its counters at zero; the checkout alone, where nothing else is asked for.

    ``falls_back``: it may leave something to urllib3; otherwise that fails the test.
    """
    stalepool.install(**{**CHECKOUT_ALONE, **settings})
    forget_what_was_counted()
    for remembered in list(state._states.values()):  # of connections that are pooled already
        if remembered.sock() is not None:
            remembered.origin = stats.origin(remembered.origin.name)
    try:
        yield
        assert falls_back or fallback.counts() == {}
    finally:
        stalepool.install()


both = pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])


def environ_of(who):
    """For clients in a process of their own, which ``import stalepool`` has installed."""
    return {"STALEPOOL_ENABLED": "0" if who is stock else "1"}


def pool_for(server, tls=None, **options):
    """A pool of one connection to a server; a context manager. Nothing is retried."""
    options = {"maxsize": 1, "retries": False, "timeout": 10.0, **options}
    if server.family == socket.AF_UNIX:
        return UnixPool("localhost", path=server.path, **options)
    if tls is None:
        return urllib3.HTTPConnectionPool(server.host, server.port, **options)
    options["ca_certs"] = tls.ca_path
    return urllib3.HTTPSConnectionPool(server.host, server.port, **options)


def answer_no_connect(server):
    """From now on a connect is not even refused: no SYN gets through."""
    swallow(server._sock)


@contextlib.contextmanager
def serving(
    script=(), *, tls=None, family=socket.AF_INET, default=None, receive_buffer=None, **options
):
    """A fault server, and a pool of one connection to it; ``tls``: that of both, or its version."""
    tls = TLS(tls) if isinstance(tls, str) else tls
    server = FaultServer(
        script, tls=tls, family=family, default=default, receive_buffer=receive_buffer
    )
    with server, pool_for(server, tls, **options) as pool:
        yield server, pool


class UnixConnection(urllib3.connection.HTTPConnection):
    """HTTP over AF_UNIX, as requests-unixsocket and docker do it: by a connect() of their own."""

    def __init__(self, *args, path, **kwargs):
        super().__init__(*args, **kwargs)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class UnixPool(urllib3.HTTPConnectionPool):
    ConnectionCls = UnixConnection


def get(pool, path="/", **options):
    """One GET, its body read; the status."""
    return int(pool.request("GET", path, **options).status)


def pooled_connection(pool):
    """The connection that the next request will take."""
    return next(conn for conn in reversed(pool.pool.queue) if conn is not None)


def await_arrival(pool, events=kernel.POLLIN):
    """Wait until what the server did has reached the pooled connection."""
    kernel.wait_readable(pooled_connection(pool).sock, events=events)


def end_while_idle(server, pool, step=None):
    """The server closes the pooled connection, or does what it is told, and that has arrived."""
    server.perform(step or CloseAfter(0))
    await_arrival(pool)


def counters(server):
    """What ``snapshot()`` says of a server's origin."""
    origins = stalepool.snapshot()["origins"]
    mine = [seen for name, seen in origins.items() if name.endswith(":%s" % (server.port or 80))]
    # a connection of another test's may have had the same port, and be alive yet
    counted = ("checkouts", "keepalive_armed", "moved", "replays", "replays_refused", "reconnects")
    mine = [seen for seen in mine if any(seen[key] for key in counted)] or mine[:1]
    assert len(mine) <= 1, origins
    return dict(mine[0]) if mine else {}


def stops_moves(server):
    """Tell whether moves near an idle limit are stopped, also while one is under way."""
    return stats.origin(server.origin).knowledge.moves_stopped_for_s > 0


def verdicts(server):
    return dict(counters(server).get("verdicts", {}))


def let_pass(pool, seconds):
    """Time on the pooled connection, as the shim counts it; the kernel's clock stays."""
    remembered = state.find(pooled_connection(pool).sock)
    assert remembered is not None
    remembered.used_at -= seconds


def wait_idle(sock, seconds):
    """Wait until no data has come in for so long, by the kernel's clock, nor an answer by ours.

    The kernel counts in ticks of up to 10 ms, and may be ahead by one; and on a busy machine data
    have come in some time before the answer is read.
    """
    sock = pooled_connection(sock).sock if hasattr(sock, "pool") else sock
    layers, remembered = layers_of(sock), state.find(sock)
    kernel.wait_until(
        lambda: (
            tcp_info.ask(layers).last_data_recv_ms >= seconds * 1000 + 20
            and (remembered is None or monotonic() - remembered.used_at >= seconds)
        ),
        "%s idle seconds" % seconds,
        10,
    )


class UnknownSocket:
    """A socket of a kind that nobody has heard of."""

    def __init__(self, sock):
        self._sock = sock

    def __getattr__(self, name):
        return getattr(self._sock, name)
