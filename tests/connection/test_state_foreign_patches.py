"""Connections that others have patched, subclassed, copied or emptied: as without the shim."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import os
import pickle
import warnings
import weakref
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import urllib3

import stalepool_testing as testing
from oracle import describe_error, describe_pool
from pools import end_while_idle, in_stock, pool_for, pooled_connection, serving
from replay_tools import asked, outcome, reused
from stalepool_testing import CloseAfter, FaultServer, ProcessThenClose, ProcessThenReset, Respond

pytestmark = pytest.mark.usefixtures("defaults")


@contextlib.contextmanager
def botocore(*script: Any) -> Iterator[Tuple[FaultServer, Any]]:
    """A server, and a function that sends a request to it, and returns the status."""
    pytest.importorskip("botocore")
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session

    with FaultServer([Respond(), *script]) as server:
        session = URLLib3Session(timeout=20)

        def send(method: str, **options: Any) -> int:
            request = AWSRequest(method=method, url=server.url + "wanted", **options)
            return int(session.send(request.prepare()).status_code)

        try:
            assert send("GET") == 200
            yield server, send
        finally:
            session.close()


EXPECTING = {"Expect": "100-continue"}


def test_botocore_is_answered() -> None:
    """Its connection keeps ``response_class`` on the instance, and awaits ``100 Continue``."""
    with_a_continue = [Respond(), Respond()]
    script = [ProcessThenClose(), Respond(), *with_a_continue, ProcessThenReset()]
    with botocore(*script) as (server, send):
        assert send("GET") == 200
        for _ in range(2):
            assert send("PUT", data=b"put", headers=EXPECTING) == 200
        assert send("PUT", data=b"put") == 200
        assert len(server.journal) == 7


@pytest.mark.parametrize("method, headers", [("POST", {}), ("PUT", EXPECTING)])
def test_botocores_errors_are_stocks(method: str, headers: Any) -> None:
    def fail() -> List[Any]:
        with botocore(ProcessThenClose()) as (server, send):
            with pytest.raises(Exception) as caught:
                send(method, data=b"1", headers=headers)
            return [describe_error(caught.value), len(server.journal)]

    assert fail() == in_stock(fail)


def test_a_guard_against_sockets_is_obeyed() -> None:
    """pytest-socket: no socket is made, and its error is the caller's where stock meets it."""
    guard = pytest.importorskip("pytest_socket")

    def send(step: Any) -> List[Any]:
        with reused(Respond(), step) as (server, pool):
            guard.disable_socket()
            try:
                assert outcome(pool, "POST") == 200
                if step == Respond():
                    pooled_connection(pool).close()
                with pytest.raises(Exception) as caught:
                    pool.request("GET", "/wanted")
            finally:
                guard.enable_socket()
            return [describe_error(caught.value), asked(server)]

    for step in (Respond(), ProcessThenClose()):
        assert send(step) == in_stock(send, step)


def test_a_record_that_is_posted_makes_no_records(caplog: pytest.LogCaptureFixture) -> None:
    """By whoever collects all, at DEBUG: a post that meets a dead connection is none more."""
    caplog.set_level(logging.DEBUG)
    with serving(default=testing.RespondThenClose(announced=False)) as (server, pool):
        for number in (1, 2):
            logging.getLogger("application").info("record %d", number)
            assert pool.request("POST", "/log", body=caplog.messages[-1]).status == 200
            server.wait_ended(number - 1)
    assert not [record for record in caplog.records if record.name.startswith("stalepool")]


class ConnectsOnce(urllib3.connection.HTTPConnection):
    """Its tunnel, say, is set up by hand, and cannot be a second time."""

    connects = 0

    def connect(self) -> None:
        if self.connects:
            raise RuntimeError("connected before")
        self.connects = 1
        super().connect()


class CloseRaises(urllib3.connection.HTTPConnection):
    error: Any = RuntimeError

    def close(self) -> None:
        is_open = self.sock is not None
        super().close()
        if is_open:
            raise self.error(5, "close")


class CloseRaisesOSError(CloseRaises):
    error = OSError


@pytest.mark.each_value
@pytest.mark.parametrize("cls", [ConnectsOnce, CloseRaises, CloseRaisesOSError])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "fault", [ProcessThenClose(), ProcessThenReset(), CloseAfter(0), Respond()], ids=repr
)
def test_a_connection_class_of_somebody_else_fails_as_it_does(
    cls: Any, method: str, fault: Any
) -> None:
    """Where the request was not saved, with its own error."""
    is_idle = fault == CloseAfter(0)

    def send() -> Tuple[Any, Any, Dict[str, Any]]:
        with FaultServer([Respond(), *([] if is_idle else [fault])]) as server:
            pool = pool_for(server)
            pool.ConnectionCls = cls
            assert pool.request("GET", "/prime").status == 200
            if is_idle:
                end_while_idle(server, pool)
            try:
                seen: Any = pool.request(method, "/wanted").status
            except Exception as error:
                seen = describe_error(error)
            state = describe_pool(pool)
            with contextlib.suppress(RuntimeError, OSError):
                pool.close()
            return seen, asked(server), state

    expected, found = in_stock(send), send()
    is_saved = found[0] == 200 != expected[0] and method == "GET" and not is_idle
    assert is_saved or found == expected


def test_a_request_by_hand_on_a_connection_that_dies_fails_as_it_does() -> None:
    """No pool has checked the connection out, so nobody has seen that it lived."""
    with reused(ProcessThenClose()) as (server, pool):
        conn = pooled_connection(pool)
        with pytest.raises(ConnectionError):
            pool._make_request(conn, "GET", "/wanted", timeout=None)
        conn.close()
        assert asked(server) == 1


COPIES = {
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": lambda conn: pickle.loads(pickle.dumps(conn)),
}


def ask(conn: Any) -> None:
    conn.request("GET", "/")
    assert conn.getresponse().read() == b""


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_closed_connection_is_what_it_is_in_stock(name: str) -> None:
    """It connects anew."""

    def attributes() -> List[str]:
        with reused(default=Respond()) as (server, pool):
            assert outcome(pool, "GET") == 200
            conn = pool._get_conn()
            conn.close()
            assert b"stalepool" not in pickle.dumps(conn)  # it loads without it
            twin = COPIES[name](conn)
            found = sorted(vars(twin))
            ask(twin)
            twin.close()
            assert len(server.journal.connections) == 2
            return found

    assert attributes() == in_stock(attributes)


def test_a_copy_of_an_open_connection_shares_its_socket() -> None:
    with reused(default=Respond()) as (server, pool):
        conn = pool._get_conn()
        for each in (copy.copy(conn), conn):
            ask(each)
        conn.close()
        assert len(server.journal.connections) == 1


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is let go is gone at once: the collector, and what it complains of, is off."""
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_response_class_kept_on_the_instance_holds_no_connection() -> None:
    """Botocore's habit."""
    with FaultServer() as server:
        conn = urllib3.connection.HTTPConnection("127.0.0.1", server.port, timeout=20)
        conn.response_class = conn.response_class
        ask(conn)
        kept = weakref.ref(conn), weakref.ref(conn.sock)
        del conn
        assert [each() for each in kept] == [None, None]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("version", [None, "TLSv1.3"])
@pytest.mark.parametrize("is_ended_by", ["client", "server"])
def test_a_socket_that_is_let_go_is_closed(version: Any, is_ended_by: str) -> None:
    """By a client that sets its ``sock`` to None, or by a check that finds its end.

    The connection object is kept; the socket and its TLS layer go at once.
    """
    with reused(tls=version) as (server, pool):
        if is_ended_by == "server":
            end_while_idle(server, pool)
        sock = weakref.ref(pooled_connection(pool).sock)
        descriptor = pooled_connection(pool).sock.fileno()
        conn = pool._get_conn()
        if is_ended_by == "client":
            conn.sock = None
        assert conn.sock is None and sock() is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
