"""Keepalive on the sockets of an origin, whose probes are swallowed."""

import os
import socket

import urllib3

import stalepool
from pools import get, pool_for, pooled_connection, serving, shim
from stalepool import runtime
from stalepool.connection.state import FRESH, State
from stalepool.sockets import keepalive
from stalepool.sockets.layers import layers_of


def test_once_probes_are_known_to_be_swallowed_no_connection_is_probed_as_often_as_before():
    """Whatever it waits for: keepalive would end it, alive as it is. And a new one not at all."""
    with shim(falls_back=True), serving(maxsize=2) as (server, pool), serving() as (_, other):
        bare = [urllib3.connection.HTTPConnection(server.host, server.port) for _ in range(2)]
        for conn in bare:
            conn.sock = socket.socket()
            state = State(conn, FRESH)
        answers = [pool.request("GET", "/", preload_content=False) for _ in range(2)]
        assert get(other) == 200
        conns = [*(answer._connection for answer in answers), pooled_connection(other)]
        bare[0].sock.close()
        os.close(bare[1].sock.fileno())  # behind the back of the socket
        state.note_probes_swallowed(runtime.current)
        bare[1].sock.detach()
        assert [keepalive.read(layers_of(c.sock)).interval_s for c in conns] == [75, 75, 3]
        with pool_for(server) as new:
            assert get(new) == 200
            sock = pooled_connection(new).sock
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert stalepool.snapshot()["fallbacks"] == {"keepalive_failed": 1}
