"""Connections that others have patched, subclassed, copied or emptied: as without the shim."""

import contextlib
import copy
import logging
import pickle

import pytest

import stalepool_testing as testing
from oracle import describe_error
from pools import in_stock, pooled_connection, serving
from replay_tools import asked, outcome, reused
from stalepool_testing import FaultServer, ProcessThenClose, ProcessThenReset, Respond

pytestmark = pytest.mark.usefixtures("defaults")


@contextlib.contextmanager
def botocore(*script):
    """A server, and a function that sends a request to it, and returns the status."""
    pytest.importorskip("botocore")
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session

    with FaultServer([Respond(), *script]) as server:
        session = URLLib3Session(timeout=20)

        def send(method, **options):
            request = AWSRequest(method=method, url=server.url + "wanted", **options)
            return int(session.send(request.prepare()).status_code)

        try:
            assert send("GET") == 200
            yield server, send
        finally:
            session.close()


EXPECTING = {"Expect": "100-continue"}


def test_botocore_is_answered():
    """Its connection keeps ``response_class`` on the instance, and awaits ``100 Continue``."""
    script = [ProcessThenClose(), Respond(), *[Respond()] * 2, ProcessThenReset()]
    with botocore(*script) as (server, send):
        assert send("GET") == 200
        for headers in (EXPECTING, EXPECTING, {}):
            assert send("PUT", data=b"put", headers=headers) == 200
        assert len(server.journal) == 7


@pytest.mark.parametrize("method, headers", [("POST", {}), ("PUT", EXPECTING)])
def test_botocores_errors_are_stocks(method, headers):
    def fail():
        with botocore(ProcessThenClose()) as (server, send):
            with pytest.raises(Exception) as caught:
                send(method, data=b"1", headers=headers)
            return [describe_error(caught.value), len(server.journal)]

    assert fail() == in_stock(fail)


def test_a_guard_against_sockets_is_obeyed():
    """pytest-socket: no socket is made, and its error is the caller's where stock meets it."""
    guard = pytest.importorskip("pytest_socket")

    def send(step):
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


def test_a_record_that_is_posted_makes_no_records(caplog):
    """By whoever collects all, at DEBUG: a post that meets a dead connection is none more."""
    caplog.set_level(logging.DEBUG)
    with serving(default=testing.RespondThenClose(announced=False)) as (server, pool):
        for number in (1, 2):
            logging.getLogger("application").info("record %d", number)
            assert pool.request("POST", "/log", body=caplog.messages[-1]).status == 200
            server.wait_ended(number - 1)
    assert not [record for record in caplog.records if record.name.startswith("stalepool")]


def test_a_request_by_hand_on_a_connection_that_dies_fails_as_it_does():
    """No pool has checked the connection out, so nobody has seen that it lived."""
    with reused(ProcessThenClose()) as (server, pool):
        conn = pooled_connection(pool)
        with pytest.raises(ConnectionError):
            pool._make_request(conn, "GET", "/wanted", timeout=None)
        conn.close()
        assert asked(server) == 1


def ask(conn):
    conn.request("GET", "/")
    assert conn.getresponse().status == 200


def test_a_copy_of_a_connection_is_what_it_is_in_stock():
    """Of an open one it shares the socket; of a closed one it connects anew."""
    with reused() as (server, pool):
        conn = pool._get_conn()
        for each in (copy.copy(conn), conn):
            ask(each)
        conn.close()
        pickled = pickle.dumps(conn)
        assert b"stalepool" not in pickled  # it loads without it
        for twin in (copy.deepcopy(conn), pickle.loads(pickled)):
            with contextlib.closing(twin):
                ask(twin)
        assert len(server.journal.connections) == 3
