"""Faults that are added to a running server and lifted again, as raw clients meet them."""

import _socket
import contextlib
import http.client
import re
import socket
import ssl
import time

import pytest

import lanes
import stalepool_testing as testing
from conftest import child
from raw_client import RawClient, assert_eof, connected
from stalepool.sockets.layers import layers_of
from stalepool_testing import TLS, Bandwidth, Blackout, FaultServer, Latency, ResetAtNextByte
from stalepool_testing.kernel import reset, wait_until
from worlds import WITH_TESTS

RESET = (ConnectionError, http.client.HTTPException)
LONG_S = 1000.0  # a fault that is not lifted fails its test by timeout


@pytest.fixture(params=lanes.first(2, ["plain", "TLSv1.3", "TLSv1.2"]))
def tls(request):
    return None if request.param == "plain" else TLS(request.param)


@pytest.fixture
def server(tls):
    with FaultServer(tls=tls) as server:
        yield server


@pytest.fixture
def client(server):
    """Whose connection has brought a request."""
    with RawClient(server) as client:
        assert client.ask().status == 200
        yield client


def seconds(action, *args, **options):
    started = time.monotonic()
    action(*args, **options)
    return time.monotonic() - started


def said(server):
    """The lines of the journal about faults."""
    return [what for _, connection, what in server.journal.lines if connection is None]


FAULTS = [Latency(0.05, "up"), Latency(0.05), Bandwidth(20000, "up"), Bandwidth(20000)]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_it_takes_longer(fault, tls):
    """On a connection that is open, and on a new one with its handshake. On the way up, a request
    is late before it is processed.
    """
    body = b"x" * 1000
    with connected(default=testing.Respond(body=body), tls=tls) as (server, client):
        with server.add(fault), RawClient(server) as another:
            began = time.monotonic()
            client.send("POST", body=body)
            server.wait_request()
            assert time.monotonic() - began >= 0.04 or fault != Latency(0.05, "up")
            client.receive("POST")
            assert time.monotonic() - began >= 0.04
            assert seconds(another.ask, "POST", body=body) >= 0.05
    assert [entry.body for entry in server.journal] == [body, body]


def test_latencies_add_up_and_meet_each_write(tls):
    with connected([testing.SlowAnswer(0, pieces=3)], tls=tls) as (server, client):
        with server.add(Latency(0.01)), server.add(Latency(0.02)):
            assert seconds(client.ask) >= 4 * 0.03  # the head, and three pieces


LONG = testing.Respond(body=b"x" * 10000)


def test_of_several_bandwidths_the_smallest_counts_and_lifting_it_sets_the_answer_free():
    with connected([LONG]) as (server, client), server.add(Bandwidth(10**6)):
        slow = server.add(Bandwidth(10))
        client.send()
        testing.wait_readable(client.sock)
        slow.lift()
        assert client.receive().status == 200


@pytest.mark.parametrize("direction", ["up", "down"])
def test_reset_at_the_next_byte(direction, server, client):
    """What came up is processed; a connection on which no byte comes, or a FIN, is not met."""
    with RawClient(server) as another:
        with server.add(ResetAtNextByte(direction)):
            socket.create_connection((server.host, server.port)).close()
            assert server.wait_ended(2) == "client"
            with pytest.raises(RESET):
                client.ask()
            with pytest.raises(RESET), RawClient(server) as new:
                new.ask()
        assert another.ask().status == 200
    assert server.wait_ended(0) == "reset"
    assert str(server.journal).count(f"a byte meets {ResetAtNextByte(direction)}") == 2
    lost = [entry.processed for entry in server.journal if not entry.answered]
    assert lost[:1] == [True] * (direction == "down")


def test_reset_in_the_middle_of_an_answer():
    with connected([LONG]) as (server, client), server.add(Bandwidth(10000)):
        client.send()
        testing.wait_readable(client.sock)
        with server.add(ResetAtNextByte("down")), pytest.raises(ConnectionError):
            client.receive()


def test_blackouts_end_with_the_last(server, client):
    """A server that stops in one sends its FIN."""
    server.add(Blackout()).lift()
    with server.add(Blackout()):
        server.add(Blackout()).lift()
        client.send()
        with pytest.raises(TimeoutError):
            testing.wait_readable(client.sock, 0.1)
        with pytest.raises(socket.timeout):
            server.connect(timeout_s=0.1)
        assert len(server.journal) == 1
    assert client.receive().status == 200, "the client's kernel has sent it again"
    with RawClient(server) as new:
        assert new.ask().status == 200
    server.add(Blackout())
    server.close()
    assert_eof(client.sock)
    with contextlib.suppress(BrokenPipeError):  # TLS has answered the end, and has met one
        _socket.socket.send(layers_of(client.sock).raw, b"late")
    # an RST: it swallows nothing any more, such as the acknowledgement of the FIN
    testing.wait_readable(client.sock, events=0)


def test_a_server_that_goes_and_comes_back(server, client):
    """On its port, and into a fault that has been in force all the time."""
    with server.add(Blackout()):
        server.stop_listening()
        server.stop_listening()
        server.listen()
        server.listen()
        with pytest.raises(socket.timeout):
            server.connect(timeout_s=0.1)
    server.stop_listening()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert client.ask().status == 200
    server.close_connections()
    assert_eof(client.sock)
    server.listen()
    with RawClient(server) as new:
        assert new.ask().status == 200


def test_a_client_that_has_just_connected_is_met():
    with FaultServer() as server:
        for number in range(50):
            with socket.create_connection((server.host, server.port)):
                with server.add(Latency(1), only_open=True):
                    pass
            assert said(server)[-2].endswith(f" to connections {number}")
            server.wait_ended(number)


def test_only_open_connections(server, client):
    """As behind a firewall that has lost its state."""
    with RawClient(server) as second:
        with server.add(Blackout(), only_open=True), RawClient(server) as another:
            client.send()
            assert another.ask().status == 200
        with server.add(ResetAtNextByte(), only_open=True), RawClient(server) as another:
            with pytest.raises(RESET):
                second.ask()
            assert another.ask().status == 200
    assert said(server)[0] == "Blackout() added to connections 0, 1"


@pytest.mark.parametrize("fault", [Latency(LONG_S), Latency(LONG_S, "up"), Bandwidth(1)], ids=str)
def test_bytes_are_held_up_until_the_end_of_it_or_of_the_server(fault, server, client):
    with server.add(fault):
        pass
    assert client.ask().status == 200
    server.add(fault)
    client.send()
    wait_until(lambda: len(server.journal) == 3 or fault == Latency(LONG_S, "up"), "request")
    server.close()


def test_the_journal_says_what_was_added_and_lifted():
    with FaultServer() as server:
        with server.add(Latency(0.2)) as latency:
            assert latency.fault == Latency(0.2)
            reset = server.add(ResetAtNextByte(), only_open=True)
        reset.lift()
        reset.lift()
    assert said(server) == [
        "Latency(seconds=0.2) added",
        "ResetAtNextByte() added to connections none",
        "Latency(seconds=0.2) lifted",
        "ResetAtNextByte() lifted",
    ]
    first = server.report().splitlines()[1]
    assert re.match(r" +\d+\.\d{3} ms  the server    Latency\(seconds=0.2\) added", first)


def test_what_the_kernel_cannot_do():
    with FaultServer(family=socket.AF_UNIX) as server:
        with pytest.raises(testing.Unavailable, match="needs TCP"):
            server.add(Blackout())
        assert said(server) == []


def test_that_one_client_goes_is_no_error_of_its_neighbour():
    """If both are green, one thread has the TLS errors of both."""
    with FaultServer([testing.SlowAnswer(0.5)], tls=TLS()) as server:
        goes, stays = server.connect(), server.connect()
        goes.sendall(b"GET / HTTP/1.1\r\n\r\n")
        goes.recv(9)
        reset(goes)
        stays.setblocking(False)
        server.wait_ended(0)  # by a send that failed
        with pytest.raises(ssl.SSLWantReadError):
            stays.recv(1)
        stays.close()


GREEN = "import sys, worlds; worlds.enter(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"


@pytest.mark.parametrize("world", lanes.first(1, ["eventlet", "gevent"]))
def test_in_a_green_world(world):
    """Tests of this file that have each fault, the server and its clients in one thread."""
    chosen = "longer or add_up or blackouts or only_open or goes"
    words = ["-p", "no:cacheprovider", "-k", chosen, __file__]
    done = child("-Wignore", "-c", GREEN, world, *words, env=WITH_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
