"""Each stale state is what it says: asked of the bare kernel, below any library."""

import errno
import os
import shutil
import socket
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

import conftest
import stalepool_testing as testing
from pools import pool_for
from socket_states import converse
from stalepool_testing import TLS, FaultServer, Unavailable, into_pool, kernel, wait_readable
from stalepool_testing.kernel import POLLERR, POLLHUP, POLLIN, POLLRDHUP
from stalepool_testing.sockets import REQUEST_TIMEOUT

ESTABLISHED, CLOSE, CLOSE_WAIT = 1, 7, 8
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6, "unix": socket.AF_UNIX}

DEAD = POLLIN | POLLRDHUP
TLS_12 = {"version": "TLSv1.2"}

#: how to make a state, what poll shows of the client's end, its TCP state, what a read meets there
STATES = [
    (testing.healthy, {}, 0, ESTABLISHED, BlockingIOError),
    (testing.eof, {}, DEAD, CLOSE_WAIT, b""),
    (testing.half_closed, {}, DEAD, CLOSE_WAIT, b""),
    (testing.reset, {}, DEAD | POLLERR | POLLHUP, CLOSE, ConnectionResetError),
    (testing.unread, {}, POLLIN, ESTABLISHED, REQUEST_TIMEOUT),
    (testing.unread, {"data": b"surprise"}, POLLIN, ESTABLISHED, b"surprise"),
    (testing.black_hole, {}, 0, ESTABLISHED, BlockingIOError),
    (testing.tls_healthy, {}, 0, ESTABLISHED, ssl.SSLWantReadError),
    (testing.tls_healthy, TLS_12, 0, ESTABLISHED, ssl.SSLWantReadError),
    (testing.close_notify, {}, POLLIN, ESTABLISHED, b""),
    (testing.close_notify, TLS_12, POLLIN, ESTABLISHED, b""),
    (testing.close_notify, {"fin": True}, DEAD, CLOSE_WAIT, b""),
    (testing.close_notify, {"fin": True, **TLS_12}, DEAD, CLOSE_WAIT, b""),
    (testing.late_ticket, {}, POLLIN, ESTABLISHED, ssl.SSLWantReadError),
    (testing.surplus_in_tls, {}, 0, ESTABLISHED, REQUEST_TIMEOUT),
    (testing.surplus_in_tls, {"surplus": b"more", **TLS_12}, 0, ESTABLISHED, b"more"),
    (testing.tls_unread, {}, POLLIN, ESTABLISHED, REQUEST_TIMEOUT),
    (testing.tls_unread, {"data": b"surprise", **TLS_12}, POLLIN, ESTABLISHED, b"surprise"),
]


@pytest.mark.parametrize(
    "make, options, events, state, meets",
    STATES,
    ids=["%s(%s)" % (row[0].__name__, row[1] or "") for row in STATES],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_state(make, options, events, state, meets, family):
    if (make, family) == (testing.black_hole, "unix"):
        with pytest.raises(Unavailable, match="needs TCP"):
            make(family=socket.AF_UNIX)
        return
    with make(family=FAMILIES[family], **options) as pair:
        client, peer = pair
        if family != "unix":
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] == state
        elif state == CLOSE_WAIT and make is not testing.half_closed:
            events |= POLLHUP  # a socket pair knows that the other end is closed
        assert kernel.events_on(client) == events
        length = len(meets) if isinstance(meets, bytes) else 0
        if make.__module__ == "stalepool_testing.tls_sockets":
            assert client.version() == options.get("version", "TLSv1.3")
            assert client.pending() == (0 if events else length)
            assert (kernel.unread_bytes(client) > 0) == bool(events)
        else:
            assert kernel.unread_bytes(client) == length
        assert client.gettimeout() is peer.gettimeout() is None
        client.setblocking(False)
        if isinstance(meets, bytes):
            assert client.recv(1000) == meets
        else:
            with pytest.raises(meets):
                client.recv(1)
        if make in (testing.healthy, testing.tls_healthy, testing.late_ticket):
            assert kernel.events_on(client) == 0, "both tickets had arrived"
            converse(pair)
        if make is testing.half_closed:
            client.sendall(b"late")
            assert peer.recv(4) == b"late"
    pair.close()  # once more
    assert client.fileno() == peer.fileno() == -1


def test_each_stale_state_has_the_name_of_its_function_and_its_options():
    plain, over_tls = (testing.stale_states(tls=tls) for tls in (False, True))
    assert testing.stale_states() == plain + over_tls
    made = {row[0] for row in STATES} - {testing.healthy, testing.tls_healthy, testing.late_ticket}
    assert {getattr(testing, name) for name in plain + over_tls} == made
    with testing.stale_socket("tls_unread", family=socket.AF_UNIX, **TLS_12) as pair:
        assert (pair.client.family, pair.client.version()) == (socket.AF_UNIX, "TLSv1.2")


def test_black_hole():
    with testing.black_hole() as pair:
        pair.peer.sendall(b"one way")
        wait_readable(pair.client)
        assert pair.client.recv(100) == b"one way"
        pair.client.sendall(b"lost")
        assert kernel.unacknowledged_bytes(pair.client) == 4
        assert kernel.events_on(pair.peer) == 0
        testing.release(pair.peer)
        wait_readable(pair.peer)  # what the kernel sends again comes through
        assert pair.peer.recv(4) == b"lost"
        kernel.wait_until(lambda: kernel.unacknowledged_bytes(pair.client) == 0, "acknowledgement")
        testing.release(pair.peer)  # which swallows nothing any more
        converse(pair)


def test_a_machine_on_which_there_is_no_such_state(monkeypatch):
    so_lock_filter = 44
    with testing.black_hole() as pair:
        pair.peer.setsockopt(socket.SOL_SOCKET, so_lock_filter, 1)
        for change in testing.swallow, testing.release:
            with pytest.raises(Unavailable, match="refuses"):
                change(pair.peer)
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(Unavailable, match="darwin"):
        testing.black_hole()
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(Unavailable, match="openssl"):
        testing.key_update()


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
@pytest.mark.parametrize("make", [testing.healthy, FaultServer])
def test_a_machine_without_ipv6(make, number, monkeypatch):
    def refuse(*address):
        raise OSError(number, "no")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(Unavailable, match=r"^this machine has no IPv6 loopback \(::1\)$"):
        make(family=socket.AF_INET6)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_key_update():
    with testing.key_update() as pair:
        assert kernel.events_on(pair.client) == POLLIN
        pair.client.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            pair.client.recv(1)
        pair.client.setblocking(True)
        assert kernel.events_on(pair.client) == 0
        pair.peer.sendall(b"after the update\n")
        assert pair.client.recv(100) == b"after the update\n"


def make_certificates():
    sys.modules["trustme"] = None
    with pytest.raises(ImportError, match=r"stalepool\[testing\]"):
        TLS()
    del sys.modules["trustme"]
    paths = [TLS().ca_path, TLS("TLSv1.2").cert_path]
    if os.fork() == 0:
        raise SystemExit  # a child's orderly exit leaves them alone
    os.wait()
    assert all(map(os.path.exists, paths))
    return paths


def test_certificates_need_trustme_and_go_with_the_process(call_python):
    paths = call_python(make_certificates)
    assert len(paths) == 2 and not any(map(os.path.exists, paths))


def count_authorities():
    together = threading.Barrier(6)

    def authority(_):
        together.wait()
        return TLS().client_context.get_ca_certs(binary_form=True)[0]

    with ThreadPoolExecutor(6) as executor:
        return len(set(executor.map(authority, range(6))))


def test_threads_that_start_together_have_one_authority(call_python):
    """In a process without forks: a child of one that had threads may wait for their locks."""
    assert call_python(count_authorities) == 1


def test_into_pool_keeps_what_is_there_below():
    with FaultServer() as server, pool_for(server, maxsize=2) as pool:
        pooled = [into_pool(pool, server.connect()) for _ in range(2)]
        with server.connect() as sock, pytest.raises(ValueError, match="maxsize"):
            into_pool(pool, sock)
        assert list(pool.pool.queue) == pooled


GREEN = """
    import socket
    early, _peer = socket.socketpair()
    import eventlet
    eventlet.monkey_patch()
    import urllib3
    from stalepool_testing import FaultServer, eof, into_pool

    with FaultServer() as server, eof() as pair:
        with urllib3.HTTPConnectionPool("127.0.0.1", server.port) as pool:
            into_pool(pool, pair.client)
            assert pool.request("GET", "/", retries=False).status == 200
            assert isinstance(pair.client, socket.socket)
    with urllib3.HTTPConnectionPool("127.0.0.1", 9) as pool:
        assert type(into_pool(pool, early).sock).__name__ == "GreenSocket"
    early.close(), _peer.close()
"""


def test_into_pool_under_eventlet(run_python):
    """The states by themselves: ``test_checkout_never_yields``, by the same tools."""
    # eventlet warns of its own future
    run_python(GREEN, flags=("-Wignore", "-Werror::ResourceWarning"))


@pytest.mark.parametrize("is_required", [False, True])
def test_what_this_machine_cannot_do_is_skipped_unless_required(is_required, run_python):
    """Met by others, or in a child."""
    options = {"--without": [], "--require-black-hole": is_required}
    item = SimpleNamespace(config=SimpleNamespace(getoption=options.__getitem__))
    wrapped = RuntimeError()
    wrapped.__cause__ = Unavailable("no socket filter")
    with pytest.raises(AssertionError) as in_a_child:
        run_python("from stalepool_testing import Unavailable; raise Unavailable('here')")
    for met in wrapped, in_a_child.value:
        running = conftest.pytest_runtest_call(item)
        next(running)
        with pytest.raises(BaseException) as ended:  # a skip, too
            running.throw(met)
        assert ended.type is (type(met) if is_required else pytest.skip.Exception)
