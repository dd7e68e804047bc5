"""A move: within what time, and what may happen meanwhile."""

import pytest
import urllib3

import stalepool
from breaks import breaks
from delayed_answers import SILENT
from pools import counters, pooled_connection, shim
from replay_tools import acting, after_checkout, reused, send
from stalepool.connection import move
from stalepool.connection.state import find
from stalepool.sockets.tcp_info import TcpInfo
from stalepool_testing import Latency


@pytest.mark.parametrize(
    ("limit_s", "connect_timeout_s", "rtt_us", "moved"),
    [
        *((0.25, None, 0, "failed"), (0.25, None, 100_000, "idle_setting")),
        *((3.0, 30.0, 0, "idle_setting"), (3.0, 3.0, 0, "failed"), (0.25, 3.0, 0, move.SILENT)),
    ],
    ids=["0.25 s", "eight round trips", "a long timeout", "a tenth of a short one", "a quarter"],
)
def test_the_limit_of_a_move(limit_s, connect_timeout_s, rtt_us, moved):
    """This handshake takes 0.4 s and more, as that of a host far away does."""
    says = TcpInfo(**{**SILENT, "rtt_us": rtt_us})
    options = {"tls": "TLSv1.3", "timeout": urllib3.Timeout(connect=connect_timeout_s, read=30.0)}
    with shim(nonidempotent_max_idle_s=0), reused(**options) as (server, pool):
        if moved == move.SILENT:
            after_checkout(pool, lambda conn: setattr(find(conn.sock), "move_for", move.SILENT))
        with server.add(Latency(0.4)), breaks("TCP_INFO", by=lambda _: says):
            with breaks("limit of a move", by=limit_s):
                assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {moved: 1}


def test_a_refused_move_has_no_window():
    """Its limit is long where a round trip is; and the old connection lives."""
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        server.stop_listening()
        with breaks("limit of a move", by=2.0):
            assert send(server, pool, "POST").status == 200
        assert [entry.connection for entry in server.journal] == [0, 0]
        assert (counters(server)["moved"], counters(server)["reconnects"]) == ({"failed": 1}, {})
        assert stalepool.snapshot()["fallbacks"] == {}


def test_a_connection_that_was_closed_meanwhile_takes_none():
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        closes = [pooled_connection(pool).close]
        acting(pool, lambda: closes.pop()() if closes else None)
        outcome = send(server, pool, "POST")
        # as in stock: http.client opens a third socket and sends, but reads no answer; so
        # whether the server has seen the request by now is a race
        assert isinstance(outcome.error, urllib3.exceptions.ProtocolError)
        assert counters(server)["moved"] == {}
        server.wait_ended(1)


def test_the_callers_timeout_is_on_the_fresh_socket():
    """From the first byte on, as on the old one: it may take longer to send than to connect."""
    said = []
    for rides, setting in enumerate(("off", 0)):
        with shim(nonidempotent_max_idle_s=setting), reused(timeout=7.5) as (server, pool):
            conn = pooled_connection(pool)
            told = (b"%g" % conn.sock.gettimeout() for _ in range(1))  # asked while it is sent
            assert pool.request("POST", "/", body=told).status == 200
            assert server.journal[-1].connection == rides
            said.append((server.journal[-1].body, conn.sock.gettimeout(), conn.timeout))
    assert said[0] == said[1]
