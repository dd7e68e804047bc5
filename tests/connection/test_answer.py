"""The wait for an answer, what ends it, and what it shows of its connection."""

import contextlib
import copy
import errno
import gc
import http.client
import io
import pickle
import socket
from types import SimpleNamespace

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import stalepool
from pools import get, pooled_connection, serving, shim, stock
from replay_tools import asked, reused
from stalepool.connection.state import find
from stalepool_testing import Close, Respond, SlowAnswer


def test_an_answer_to_a_request_from_before_an_uninstall():
    """The class is kept on the instance, as botocore does."""
    with shim(), serving() as (_, pool):
        conn = pool._get_conn()
        conn.response_class = conn.response_class
        for _ in range(2):
            conn.request("GET", "/")
            stalepool.uninstall()
            response = conn.getresponse()
            assert (response.status, response.read()) == (200, b"")
        pool._put_conn(conn)


@pytest.mark.skipif(not hasattr(urllib3.HTTPResponse, "shutdown"), reason="as before urllib3 2.3")
@pytest.mark.parametrize("tls", [None, "TLSv1.3"])
def test_shutdown_ends_the_answer_to_a_replay(tls):
    """A client's ``close()`` calls it, so that it need not wait for the thread that reads."""
    ends = []
    for who, lost in ((stock(), ()), (shim(), ()), (shim(replay="idempotent"), (Close(),))):
        with who, reused(*lost, SlowAnswer(20), tls=tls) as (_, pool):
            response = pool.request("GET", "/", preload_content=False)
            assert response.shutdown() is None
            with pytest.raises(Exception) as read:
                response.read()
            ends.append(repr(read.value))
            response.close()
    assert ends == ends[:1] * 3
    assert not hasattr(urllib3.HTTPResponse, "_sock_shutdown")


def test_an_answer_on_what_no_connection_has():
    """A socket that nobody knows; and what tests of HTTP clients have in its place."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    one, other = socket.socketpair()
    with shim(), one, other:
        other.sendall(answer)
        for sock in (one, SimpleNamespace(makefile=lambda mode: io.BytesIO(answer))):
            response = HTTPConnection("127.0.0.1", 1).response_class(sock)
            response.begin()
            assert response.read() == b"ok"
            response.close()


@pytest.mark.parametrize("times, step, status", [(1, Close(), None), (0, Respond(), 200)])
def test_an_answer_whose_connection_is_gone(times, step, status):
    with shim(replay="idempotent"), reused(step, times=times) as (server, pool):
        conn = pool._get_conn()
        conn.request("GET", "/wanted")
        sock, conn.sock = conn.sock, None
        response = conn.response_class(sock, method="GET")
        del conn
        gc.collect()
        ends = contextlib.nullcontext() if status else pytest.raises(http.client.RemoteDisconnected)
        with sock, ends:
            response.begin()
            assert response.status == status
        response.close()
        assert asked(server) == 1


class Gone(socket.socket):
    """Another thread has detached it while an answer was awaited: the old timeout is refused."""

    __slots__ = ()

    def settimeout(self, seconds):
        if self.gettimeout() < seconds:
            raise OSError(errno.EBADF, "Bad file descriptor")
        super().settimeout(seconds)


def test_an_answer_that_has_come_is_read_though_its_socket_is_gone():
    settings = {"replay": "idempotent", "silence_s": 15}
    with shim(falls_back=True, **settings), reused() as (_, pool):
        pooled_connection(pool).sock.__class__ = Gone
        assert get(pool, timeout=16) == 200
        assert stalepool.snapshot()["fallbacks"] == {"answer_failed": 1}


BOUND, LIMITED, UPGRADED = "bound to an identity", "idle limit 7 s", "upgraded"

IDLES_7_S = Respond(headers={"Keep-Alive": "timeout=7"})
NEGOTIATES = Respond(401, headers={"WWW-Authenticate": "Negotiate"})


@pytest.mark.parametrize(
    ("asked_with", "answers", "shown"),
    [
        ({}, [Respond()], []),
        ({}, [NEGOTIATES], [BOUND]),
        # once a server knows who speaks, neither side says it again
        ({}, [NEGOTIATES, IDLES_7_S], [BOUND, LIMITED]),
        ({}, [Respond(407, headers={"Proxy-Authenticate": 'Basic realm="x", kerberos'})], [BOUND]),
        ({}, [Respond(401, headers={"WWW-Authenticate": 'Basic realm="x"'})], []),
        ({"Authorization": "Negotiate x"}, [Respond()], [BOUND]),
        ({"PROXY-AUTHORIZATION": "NTLM x"}, [Respond()], [BOUND]),
        ({"Authorization": "Bearer x"}, [Respond()], []),
        ({}, [IDLES_7_S], [LIMITED]),
        ({"Connection": "Upgrade", "Upgrade": "tcp"}, [Respond()], [UPGRADED]),
        ({"CONNECTION": "UPGRADE", "UPGRADE": "tcp"}, [Respond()], [UPGRADED]),
        ({}, [Respond(101)], [UPGRADED]),
    ],
)
def test_what_later_answers_show_of_their_connection(asked_with, answers, shown):
    """After the first one of a connection everything is asked; later there has to be a reason.

    The last idle limit counts.
    """
    first = Respond(headers={"Keep-Alive": "timeout=60"})
    with shim(), serving([first, *answers]) as (_, pool):
        assert get(pool) == 200
        for answer in answers:
            assert pool.request("GET", "/", headers=asked_with).status == answer.status
        found = repr(find(pooled_connection(pool).sock))
    assert [words for words in (BOUND, LIMITED, UPGRADED) if words in found] == shown


def test_an_answer_is_pickled_and_copied_as_http_clients():
    """requests-cache 0.5 pickles it, after its body is read."""
    with shim(), serving() as (_, pool):
        answer = pool.request("GET", "/")._original_response
        for made in (pickle.loads(pickle.dumps(answer)), copy.copy(answer)):
            assert type(made) is http.client.HTTPResponse
            assert (made.status, made.getheaders()) == (answer.status, answer.getheaders())

        conn = pooled_connection(pool)
        own = conn.response_class = type("Own", (conn.response_class,), {})
        of_own = pool.request("GET", "/")._original_response
        assert type(of_own) is own and type(copy.copy(of_own)) is own
