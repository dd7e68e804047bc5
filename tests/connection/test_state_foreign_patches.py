"""Connections that others have patched, subclassed, copied or emptied: as without the shim."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import http.client
import logging
import os
import pickle
import warnings
import weakref
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import urllib3

from oracle import describe_error, describe_pool
from pools import end_while_idle, in_stock, pool_for, pooled_connection, serving
from replay_tools import asked, outcome, reused
from stalepool_testing import (
    TLS,
    CloseAfter,
    FaultServer,
    ProcessThenClose,
    ProcessThenReset,
    Respond,
    RespondThenClose,
    kernel,
)

pytestmark = pytest.mark.usefixtures("defaults")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is let go is gone at once: the collector, and what it complains of, is off."""
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
    gc.enable()


# -- response classes of others -------------------------------------------------------------------


def test_a_partial_in_the_place_of_a_response_class_is_called() -> None:
    """botocore's habit: the class is kept on the instance, and now and then a partial of it."""
    with reused(Respond(), Respond(), ProcessThenClose()) as (server, pool):
        conn = pooled_connection(pool)
        kept = conn.response_class
        assert issubclass(kept, http.client.HTTPResponse)
        conn.response_class = kept
        assert outcome(pool, "GET") == 200
        made = []

        def make(sock: Any, *args: Any, note: Any, **kwargs: Any) -> Any:
            made.append(note)
            return kept(sock, *args, **kwargs)

        conn.response_class = functools.partial(make, note="here")
        assert outcome(pool, "GET") == 200
        conn.response_class = kept
        assert outcome(pool, "GET") == 200
        assert made == ["here"]
        assert asked(server) == 4


@pytest.mark.usefixtures("no_collector")
def test_a_response_class_kept_on_the_instance_holds_no_connection() -> None:
    def lives_on() -> Tuple[bool, bool]:
        with FaultServer() as server:
            conn = urllib3.connection.HTTPConnection("127.0.0.1", server.port, timeout=20)
            conn.response_class = conn.response_class
            conn.request("GET", "/")
            assert conn.getresponse().read() == b""
            connection, sock = weakref.ref(conn), weakref.ref(conn.sock)
            del conn
            return connection() is not None, sock() is not None

    assert lives_on() == in_stock(lives_on)


# -- botocore itself -------------------------------------------------------------------------------


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


# -- sockets that may not be made ------------------------------------------------------------------


def test_a_guard_against_sockets_is_obeyed() -> None:
    """pytest-socket: no socket is made, and its error is the caller's where stock meets it.

    A living connection is used.
    """
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


# -- logs that are posted --------------------------------------------------------------------------


def test_a_record_that_is_posted_makes_no_records(caplog: pytest.LogCaptureFixture) -> None:
    """By whoever collects all there is, at DEBUG: a post that meets a dead connection is none more.

    Of a handler that posts at once: ``test_fallback_logs``.
    """
    caplog.set_level(logging.DEBUG)
    with serving(default=RespondThenClose(announced=False)) as (server, pool):
        for number in (1, 2):
            logging.getLogger("application").info("record %d", number)
            assert pool.request("POST", "/log", body=caplog.messages[-1]).status == 200
            server.wait_ended(number - 1)
    assert not [record for record in caplog.records if record.name.startswith("stalepool")]


# -- connection classes of others ------------------------------------------------------------------


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
@pytest.mark.parametrize("fault", ["FIN", "RST", "idle", "none"])
def test_a_connection_class_of_somebody_else_fails_as_it_does(
    cls: Any, method: str, fault: str
) -> None:
    """Where the request was not saved, with its own error."""
    steps = {"FIN": [ProcessThenClose()], "RST": [ProcessThenReset()]}.get(fault, [])

    def send() -> Tuple[Any, Any, Dict[str, Any]]:
        with FaultServer([Respond(), *steps]) as server:
            pool = pool_for(server)
            pool.ConnectionCls = cls
            assert pool.request("GET", "/prime").status == 200
            if fault == "idle":
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
    is_saved = found[0] == 200 and expected[0] != 200 and method == "GET" and len(steps) == 1
    assert is_saved or found == expected


@pytest.mark.each_value
@pytest.mark.parametrize("timeout", [3.0, None])
@pytest.mark.parametrize("is_checked_out", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_make_request_by_hand_on_a_connection_that_dies_fails_as_it_does(
    timeout: Any, is_checked_out: bool, method: str
) -> None:
    def send() -> Tuple[Any, int, Any]:
        with reused(ProcessThenClose()) as (server, pool):
            conn = pool._get_conn() if is_checked_out else pooled_connection(pool)
            try:
                response = pool._make_request(conn, method, "/wanted", timeout=timeout)
                seen: Any = response.status
            except Exception as error:
                seen = describe_error(error)
            state = [conn.sock is None, conn._HTTPConnection__state]
            conn.close()
            return seen, asked(server), state

    found = send()
    assert found == in_stock(send) or (is_checked_out and method == "GET" and found[:2] == (200, 2))


# -- copies, and what is let go --------------------------------------------------------------------


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


COPIES = {
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": lambda conn: pickle.loads(pickle.dumps(conn)),
}


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
            assert twin.sock is None
            found = sorted(vars(twin))
            twin.request("GET", "/twin")
            assert twin.getresponse().read() == b""
            twin.close()
            assert len(server.journal.connections) == 2
            return found

    assert attributes() == in_stock(attributes)


def test_a_copy_of_an_open_connection_shares_its_socket() -> None:
    with reused(default=Respond()) as (server, pool):
        conn = pool._get_conn()
        twin = copy.copy(conn)
        assert twin.sock is conn.sock
        assert sorted(vars(twin)) == sorted(vars(conn))
        for each in (twin, conn):
            each.request("GET", "/each")
            assert each.getresponse().read() == b""
        conn.close()
        assert len(server.journal.connections) == 1


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("version", [None, "TLSv1.3"])
def test_a_socket_that_is_let_go_is_closed(version: Any) -> None:
    """By a client that keeps the connection, and sets its ``sock`` to None."""
    with reused(tls=version) as (_, pool):
        assert outcome(pool, "GET") == 200
        conn = pool._get_conn()
        descriptor = conn.sock.fileno()
        assert _is_open(descriptor)
        conn.sock = None
        assert not _is_open(descriptor)


@pytest.mark.usefixtures("no_collector")
def test_nothing_is_left_of_idle_tls_connections_that_the_server_ended() -> None:
    """The pool keeps the connection objects; their sockets and TLS layers go at once."""
    with serving(tls=TLS(), maxsize=3) as (server, pool):
        taken = [pool._get_conn() for _ in range(3)]
        for conn in taken:
            conn.request("GET", "/")
            assert conn.getresponse().read() == b""
        sockets = [weakref.ref(conn.sock) for conn in taken]
        descriptors = [conn.sock.fileno() for conn in taken]
        for conn in taken:
            pool._put_conn(conn)
        for number in range(3):
            server.perform(CloseAfter(0), connection=number)
        for sock in sockets:
            kernel.wait_readable(sock())
        del conn, sock, taken
        taken = [pool._get_conn() for _ in range(3)]
        assert all(conn.sock is None for conn in taken)
        assert not any(sock() for sock in sockets)
        assert not any(_is_open(descriptor) for descriptor in descriptors)
