"""A connection that dies after its checkout: the pre-send check sees it, or a replay follows.

How each end is seen is in ``test_replay_matrix``.
"""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from oracle import ENDS
from pools import counters, pooled_connection, shim
from replay_tools import METHODS, after_checkout, have, kind_of, reused, send
from stalepool_testing import TLS, Close, CloseAfter, kernel


@pytest.mark.parametrize(
    "options",
    [{}, {"headers": {"Content-Length": "4", "Expect": "100-continue"}}],
    ids=["in chunks", "a dialogue"],
)
def test_whatever_it_carries(options):
    """What could not be sent twice has not been sent at all."""
    with shim(presend_check=True), reused() as (server, pool):
        for number in (1, 2):
            after_checkout(pool, have(server, CloseAfter(), kernel.POLLRDHUP))
            outcome = send(server, pool, "POST", body=iter([b"on", b"ce"]), **options)
            assert outcome == (200, True, None, 1, 1)
            assert server.journal[-1].body == b"once"
            assert counters(server)["moved"] == {"presend_check": number}


def test_it_looks_before_the_first_byte_and_never_again():
    """Between head and body would be too late: the server has seen the head."""
    with shim(presend_check=True), reused(Close()) as (server, pool):

        def body() -> Iterator[bytes]:
            kernel.wait_readable(conn.sock)
            yield b"pay 10"

        conn = pooled_connection(pool)
        outcome = send(server, pool, "POST", body=body(), headers={"Content-Length": "6"})
        assert kind_of(outcome.error) == "connection"
        assert outcome.arrivals == 1
        assert counters(server)["moved"] == {}


def test_a_connection_that_was_replaced_meanwhile():
    """What is remembered is of a socket, and says nothing of another one."""

    def replace(conn: Any) -> None:
        old, conn.sock = conn.sock, None
        conn.connect()
        old.close()

    with shim(presend_check=True), reused() as (server, pool):
        after_checkout(pool, replace)
        assert send(server, pool, "POST")[:3] == (200, True, None)
        assert len(server.journal.connections) == 2
        assert counters(server)["moved"] == {}


@pytest.mark.each_value
@pytest.mark.parametrize("version", [None, "TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("name", ["FIN", "FIN without close_notify", "RST", "half-closed"])
def test_replay_alone_would_do_for_some(name, version):
    """Without the pre-send check the request goes into the dead connection, and out again."""
    with shim(replay="idempotent"), reused(tls=version) as (server, pool):
        after_checkout(pool, have(server, ENDS[name], kernel.POLLRDHUP))
        assert send(server, pool, "PUT") == (200, True, None, 1, 1)
        assert counters(server)["replays"] == {"ok": 1}


def test_without_the_presend_check():
    """What lies there is taken for the answer, as in stock."""
    with shim(presend_check=False), reused() as (server, pool):
        after_checkout(pool, have(server, ENDS["answer nobody asked for"]))
        outcome = send(server, pool, "GET")
        assert (outcome.status, outcome.is_own_answer) == (200, False)


def test_a_healthy_connection_is_kept():
    """TLS tickets that are there to be read are no reason to take another one."""
    with shim(presend_check=True), reused(tls=TLS(num_tickets=2)) as (server, pool):
        for method in METHODS:
            assert send(server, pool, method)[:2] == (200, True)
        assert len(server.journal.connections) == 1
        assert counters(server)["moved"] == {}
