"""The bytes of a request go out: by urllib3's own ``send`` alone, or looked after."""

from __future__ import annotations

import contextlib
import http.client
import io
from typing import Any, Iterator, List

import pytest
import urllib3
from urllib3.exceptions import HTTPError

import stalepool
from oracle import ENDS
from pools import counters, get, passing_through, pooled_connection, serving, shim
from replay_tools import ECHO, after_checkout, have, reused, send
from stalepool_testing import ProcessThenReset, ResetAtNextByte, Surplus, kernel


def test_uninstalled_it_passes_through() -> None:
    with serving() as (_, pool):
        with passing_through(urllib3.connection.HTTPConnection, "send"):
            assert [get(pool), get(pool)] == [200, 200]
            seen = stalepool.snapshot()
        assert seen["fallbacks"] == {} and seen["origins"] == {}


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


class SignsIn(urllib3.connection.HTTPConnection):
    """Asks for a nonce before each request. Its answers are read by a class that is not ours."""

    response_class = http.client.HTTPResponse

    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request("GET", "/nonce")
        self.getresponse().read()
        super().request(*args, **kwargs)


def test_a_second_request_in_one_checkout_is_not_taken_for_the_firsts_body() -> None:
    """The first was a GET: the POST after it would be replayed."""

    def body() -> Iterator[bytes]:
        yield b"a" * 1000
        server.wait_request(4)  # the head of the POST has been read
        with server.add(ResetAtNextByte()):
            yield b"b" * 1000
            kernel.wait_readable(conn.sock)
        yield b"c" * 1000

    with shim(replay="idempotent"), reused(connection_class=SignsIn) as (server, pool):
        conn = pooled_connection(pool)
        with pytest.raises(HTTPError):
            pool.request("POST", "/", body=body(), headers={"Content-Length": "3000"})
        assert server.journal.count(method="POST") == 1


def test_a_second_request_in_one_piece_is_not_taken_for_the_firsts_body() -> None:
    """As botocore's connection sends them: the head does not end what is sent."""
    with shim(replay="idempotent"), reused(default=ECHO) as (server, pool):
        with contextlib.closing(pool._get_conn()) as conn:
            conn.response_class = http.client.HTTPResponse
            conn.request("GET", "/")
            http.client.HTTPConnection.getresponse(conn).read()
            have(server, ResetAfter(), kernel.POLLRDHUP)(conn)
            with pytest.raises(ConnectionError):
                conn.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        assert len(server.journal.connections) == 1


def test_a_connection_that_has_no_socket_is_not_looked_after(monkeypatch: Any) -> None:
    """As of what records and plays HTTP back."""
    kept: List[bytes] = []
    monkeypatch.setattr("http.client.HTTPConnection.send", lambda conn, data: kept.append(data))
    with shim():
        urllib3.connection.HTTPConnection("127.0.0.1", 1).request("GET", "/")
        assert kept[0].startswith(b"GET / HTTP/1.1")
        assert stalepool.snapshot()["fallbacks"] == {}


def test_a_readable_connection_that_carries_an_identity_is_not_left() -> None:
    """Another one would not be who this one is."""
    with shim(presend_check=True), serving(default=ECHO) as (server, pool):
        assert get(pool, headers={"Authorization": "NTLM x"}) == 200
        sock = pooled_connection(pool).sock
        after_checkout(pool, have(server, Surplus(200, seconds=0)))
        pool.request("POST", "/")
        assert counters(server)["moved"] == {}
        assert pooled_connection(pool).sock is sock


def test_what_is_written_by_hand_has_a_method_of_its_own() -> None:
    """The last request by urllib3 was a GET; this one must reach the server once, as in stock."""
    with shim(replay="idempotent"), reused(ProcessThenReset()) as (server, pool):
        conn = pool._get_conn()
        conn.send(b"POST /pay HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        response = conn.response_class(conn.sock, method="POST")
        with pytest.raises(ConnectionError):
            response.begin()
        conn.close()
        assert server.journal.count(path="/pay") == 1


def test_what_is_written_by_hand_may_be_a_file() -> None:
    with shim(), serving() as (server, pool):
        with contextlib.closing(pool._get_conn()) as conn:
            conn.send(io.BytesIO(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
            server.wait_request()
        assert stalepool.snapshot()["fallbacks"] == {}
