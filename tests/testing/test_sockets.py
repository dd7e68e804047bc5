"""Each stale state is what it says: asked of the bare kernel, below any library."""

from __future__ import annotations

import os
import shutil
import socket
import ssl

import pytest
import urllib3

import stalepool_testing as testing
from stalepool_testing import TLS, FaultServer, Unavailable, into_pool, wait_readable
from stalepool_testing.kernel import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLRDHUP,
    events_on,
    unacknowledged_bytes,
    unread_bytes,
    wait_until,
)
from suite import run_pytest
from worlds import WITH_TESTS

ESTABLISHED, CLOSE, CLOSE_WAIT = 1, 7, 8
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6, "unix": socket.AF_UNIX}
VERSIONS = ("TLSv1.2", "TLSv1.3")
each_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(params=sorted(FAMILIES))
def family(request):
    return FAMILIES[request.param]


def tcp_state(sock):
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]


def is_tcp(sock):
    return sock.family != socket.AF_UNIX


def read_nothing(sock):
    """A non-blocking read through the TLS layer meets no application data."""
    sock.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        sock.recv(1)
    sock.setblocking(True)


def assert_talks(pair):
    pair.client.sendall(b"ping")
    assert pair.peer.recv(4) == b"ping"
    pair.peer.sendall(b"pong")
    assert pair.client.recv(4) == b"pong"


def test_healthy(family):
    with testing.healthy(family=family) as pair:
        assert events_on(pair.client) == 0
        if is_tcp(pair.client):
            assert tcp_state(pair.client) == ESTABLISHED
        assert_talks(pair)


def test_eof(family):
    with testing.eof(family=family) as pair:
        client = pair.client
        if is_tcp(client):
            assert events_on(client) == POLLIN | POLLRDHUP
            assert tcp_state(client) == CLOSE_WAIT
            client.sendall(b"late")  # taken by the kernel, answered by an RST
            assert wait_readable(client, events=0) & (POLLERR | POLLHUP)
            assert tcp_state(client) == CLOSE
        else:
            assert events_on(client) & POLLIN
            with pytest.raises(BrokenPipeError):
                client.sendall(b"late")


def test_half_closed(family):
    with testing.half_closed(family=family) as pair:
        assert events_on(pair.client) == POLLIN | POLLRDHUP
        assert pair.client.recv(1) == b""
        pair.client.sendall(b"late")
        assert pair.peer.recv(4) == b"late"
        if is_tcp(pair.client):
            assert tcp_state(pair.client) == CLOSE_WAIT


def test_reset(family):
    with testing.reset(family=family) as pair:
        assert events_on(pair.client) & (POLLERR | POLLHUP) == POLLERR | POLLHUP
        if is_tcp(pair.client):
            assert tcp_state(pair.client) == CLOSE
        with pytest.raises(ConnectionResetError):
            pair.client.recv(1)


def test_unread(family):
    with testing.unread(b"surprise", family=family) as pair:
        assert events_on(pair.client) == POLLIN
        assert unread_bytes(pair.client) == len(b"surprise")
        assert pair.client.recv(100, socket.MSG_PEEK) == b"surprise"


def test_unread_is_a_request_timeout_by_default():
    with testing.unread() as pair:
        assert pair.client.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("name", ["ipv4", "ipv6"])
def test_black_hole(name):
    with testing.black_hole(family=FAMILIES[name]) as pair:
        assert events_on(pair.client) == 0
        assert tcp_state(pair.client) == ESTABLISHED
        pair.client.sendall(b"lost")
        assert unacknowledged_bytes(pair.client) == 4
        assert events_on(pair.peer) == 0
        testing.release(pair.peer)
        wait_readable(pair.peer)  # what the kernel sends again comes through
        assert pair.peer.recv(4) == b"lost"
        wait_until(lambda: unacknowledged_bytes(pair.client) == 0, "acknowledgement")


def test_what_a_black_hole_sends_arrives():
    with testing.black_hole() as pair:
        pair.peer.sendall(b"one way")
        wait_readable(pair.client)
        assert pair.client.recv(100) == b"one way"


def test_release_of_what_swallows_nothing():
    with testing.healthy() as pair:
        testing.release(pair.peer)
        assert_talks(pair)


def test_black_hole_needs_linux(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(Unavailable, match="darwin"):
        testing.black_hole()


def test_black_hole_where_filters_are_locked():
    so_lock_filter = 44
    with testing.black_hole() as pair:
        pair.peer.setsockopt(socket.SOL_SOCKET, so_lock_filter, 1)
        with pytest.raises(Unavailable, match="refuses"):
            testing.swallow(pair.peer)
        with pytest.raises(Unavailable, match="refuses"):
            testing.release(pair.peer)


@each_version
def test_tls_healthy(version, family):
    with testing.tls_healthy(version=version, family=family) as pair:
        assert pair.client.version() == version
        assert events_on(pair.client) == 0
        assert pair.client.pending() == 0
        assert_talks(pair)
        assert events_on(pair.client) == 0


@each_version
@pytest.mark.parametrize("fin", [False, True])
def test_close_notify(version, fin, family):
    with testing.close_notify(version=version, family=family, fin=fin) as pair:
        events = events_on(pair.client)
        assert events & POLLIN
        assert bool(events & POLLRDHUP) == fin
        record_type = socket.socket.recv(pair.client, 1, socket.MSG_PEEK)[0]
        assert record_type == {"TLSv1.2": 21, "TLSv1.3": 23}[version]
        assert pair.client.recv(1) == b""


def test_late_ticket(family):
    with testing.late_ticket(family=family) as pair:
        assert events_on(pair.client) == POLLIN
        assert pair.client.pending() == 0
        read_nothing(pair.client)
        assert events_on(pair.client) == 0, "both tickets had arrived"
        assert_talks(pair)


@each_version
def test_surplus_in_tls(version, family):
    with testing.surplus_in_tls(version=version, family=family, surplus=b"surplus") as pair:
        assert pair.client.pending() == len(b"surplus")
        assert events_on(pair.client) == 0
        assert pair.client.recv(100) == b"surplus"


@each_version
def test_tls_unread(version, family):
    with testing.tls_unread(b"surprise", version=version, family=family) as pair:
        assert events_on(pair.client) == POLLIN
        assert pair.client.pending() == 0
        assert pair.client.recv(100) == b"surprise"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_key_update():
    with testing.key_update() as pair:
        assert events_on(pair.client) == POLLIN
        read_nothing(pair.client)
        assert events_on(pair.client) == 0
        pair.peer.sendall(b"after the update\n")
        assert pair.client.recv(100) == b"after the update\n"


def test_key_update_without_openssl(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(Unavailable, match="openssl"):
        testing.key_update()


def test_pair_unpacks_and_closes_twice():
    pair = testing.healthy()
    client, peer = pair
    pair.close()
    pair.close()
    assert client.fileno() == peer.fileno() == -1


def test_wait_readable_gives_up():
    with testing.healthy() as pair, pytest.raises(TimeoutError):
        wait_readable(pair.client, timeout_s=0.01)


def test_certificates_need_trustme_and_their_files_go_with_the_process(run_python):
    said, *paths = run_python(
        """
        import json, os, sys
        from stalepool_testing import TLS
        sys.modules["trustme"] = None
        try:
            TLS()
        except ImportError as error:
            said = str(error)
        del sys.modules["trustme"]
        paths = [TLS().ca_path, TLS("TLSv1.2").cert_path]
        if os.fork() == 0:
            raise SystemExit  # a child's orderly exit leaves them alone
        os.wait()
        assert all(map(os.path.exists, paths))
        print(json.dumps([said, *paths]))
        """
    )
    assert "stalepool[testing]" in said
    assert not any(map(os.path.exists, paths))


# -- into_pool -----------------------------------------------------------------------------


def test_into_pool_rides_the_socket():
    with FaultServer() as server:
        with urllib3.HTTPConnectionPool("127.0.0.1", server.port) as pool:
            connection = into_pool(pool, server.connect())
            assert pool.request("GET", "/").status == 200
            assert pool.pool.queue[-1] is connection
        assert len(server.journal.connections) == 1


@each_version
def test_into_pool_of_https(version):
    tls = TLS(version)
    with FaultServer(tls=tls) as server:
        with urllib3.HTTPSConnectionPool("127.0.0.1", server.port, ca_certs=tls.ca_path) as pool:
            into_pool(pool, server.connect())
            assert pool.request("GET", "/").status == 200
        assert len(server.journal.connections) == 1


@pytest.mark.parametrize("state", [testing.eof, testing.reset, testing.unread])
def test_into_pool_of_a_dead_socket(state):
    with FaultServer() as server, state() as pair:
        with urllib3.HTTPConnectionPool("127.0.0.1", server.port) as pool:
            into_pool(pool, pair.client)
            assert pool.request("GET", "/", retries=False).status == 200
        assert pair.client.fileno() == -1, "the pool found out, and closed it"
        assert len(server.journal.connections) == 1


def test_into_pool_keeps_what_is_there_below():
    with FaultServer() as server:
        with urllib3.HTTPConnectionPool("127.0.0.1", server.port, maxsize=2) as pool:
            first = into_pool(pool, server.connect())
            second = into_pool(pool, server.connect())
            assert list(pool.pool.queue) == [first, second]
            sock = server.connect()
            with sock, pytest.raises(ValueError, match="maxsize"):
                into_pool(pool, sock)
            assert list(pool.pool.queue) == [first, second]


GREEN = """
    import json, socket, ssl, sys
    early, _peer = socket.socketpair()
    import eventlet
    eventlet.monkey_patch()
    import urllib3
    import stalepool_testing as testing
    from stalepool_testing import FaultServer, into_pool
    from stalepool_testing.kernel import events_on

    assert type(socket.socket).__name__ == "type" and socket.socket.__name__ == "GreenSocket"
    with FaultServer() as server, testing.eof() as pair:
        with urllib3.HTTPConnectionPool("127.0.0.1", server.port) as pool:
            into_pool(pool, pair.client)
            assert pool.request("GET", "/", retries=False).status == 200
            assert isinstance(pair.client, socket.socket)
    with urllib3.HTTPConnectionPool("127.0.0.1", 9) as pool:
        assert type(into_pool(pool, early).sock).__name__ == "GreenSocket"
    early.close(), _peer.close()

    found = {}
    for name in ("healthy", "eof", "half_closed", "reset", "unread", "black_hole", "tls_healthy",
                 "close_notify", "late_ticket", "surplus_in_tls", "tls_unread"):
        with getattr(testing, name)() as pair:
            found[name] = [events_on(pair.client), isinstance(pair.client, ssl.SSLSocket)]
    print(json.dumps(found))
"""


def test_into_pool_and_every_state_under_eventlet(run_python):
    # eventlet warns of its own future, cryptography of an old Python
    found = run_python(GREEN, flags=("-Wignore", "-Werror::ResourceWarning"))
    dead = POLLIN | POLLRDHUP
    assert found == {
        "healthy": [0, False],
        "eof": [dead, False],
        "half_closed": [dead, False],
        "reset": [dead | POLLERR | POLLHUP, False],
        "unread": [POLLIN, False],
        "black_hole": [0, False],
        "tls_healthy": [0, True],
        "close_notify": [POLLIN, True],
        "late_ticket": [POLLIN, True],
        "surplus_in_tls": [0, True],
        "tls_unread": [POLLIN, True],
    }


UNAVAILABLE = """
import pytest
from stalepool_testing import Unavailable

@pytest.fixture(autouse=True, params=[False, True])
def is_required(request):
    request.config.option.require_black_hole = request.param

@pytest.fixture
def state():
    raise Unavailable("in a fixture")

def test_in_a_fixture(state):
    pass

def test_in_a_test():
    raise Unavailable("in a test")

def test_met_by_others():
    try:
        raise Unavailable("met by others")
    except OSError as error:
        raise RuntimeError from error

def test_in_a_child(run_python):
    run_python("from stalepool_testing import Unavailable; raise Unavailable('in a child')")

def test_something_else():
    raise OSError("something else")
"""


def test_what_this_machine_cannot_do_is_skipped_unless_required(tmp_path):
    options = "-p", "conftest", "-rs"
    outcome = run_pytest(tmp_path, UNAVAILABLE, *options, plugin=False, **WITH_TESTS)
    assert "5 failed, 4 skipped, 1 error" in outcome.said.splitlines()[-1], outcome.said
    for reason in ("in a fixture", "in a test", "met by others", "in a child"):
        assert ": %s\n" % reason in outcome.said, outcome.said
