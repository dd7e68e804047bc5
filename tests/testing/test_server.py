"""Each step of the fault server, and the proxy, seen by a raw client."""

import contextlib
import json
import re
import socket
import ssl
import threading
import time

import pytest
import urllib3

import lanes
import stalepool_testing as testing
from raw_client import RawClient, assert_eof, assert_reset, connected
from stalepool_testing import TLS, Close, CloseAfter, FaultServer, Respond, kernel, wait_readable
from stalepool_testing.kernel import POLLIN, POLLRDHUP


@pytest.fixture(params=[None, TLS], ids=["plain", "tls"])
def tls(request):
    return request.param and request.param()


def read_to_the_end(sock, ended):
    """Return what comes before the end, which is a FIN or an RST."""
    events = wait_readable(sock, events=POLLRDHUP)
    assert (events == POLLRDHUP) == (ended == "closed"), "a FIN, and no RST after it"
    came = b""
    # each version of OpenSSL says the end in its own way
    with contextlib.suppress(OSError if isinstance(sock, ssl.SSLSocket) else ConnectionResetError):
        while data := sock.recv(10000):
            came += data
    return came


def await_acknowledgement(sock):
    kernel.wait_until(lambda: kernel.unacknowledged_bytes(sock) == 0, "acknowledgement")


#: the server's options, and its address
TRANSPORTS = {
    "ipv4": ({}, r"http://127\.0\.0\.1:\d+"),
    "ipv6": ({"family": socket.AF_INET6}, r"http://\[::1\]:\d+"),
    "unix": ({"family": socket.AF_UNIX}, r"http\+unix://%2F.+"),
    "TLSv1.2": ({"tls": "TLSv1.2"}, r"https://127\.0\.0\.1:\d+"),
    "TLSv1.3": ({"tls": "TLSv1.3"}, r"https://127\.0\.0\.1:\d+"),
}


@pytest.mark.parametrize("options, origin", TRANSPORTS.values(), ids=TRANSPORTS)
def test_every_transport_until_the_server_is_closed(options, origin):
    tls = TLS(options["tls"]) if "tls" in options else None
    script = [Respond(body=testing.echo)] * 2
    with connected(script, **{**options, "tls": tls}) as (server, client):
        assert re.fullmatch(origin, server.origin)
        assert bool(server.port) is not bool(server.path)
        for number in range(2):
            answer = client.ask("POST", f"/{number}", b"body", X_Request_Id=f"id-{number}")
            assert (answer.status, answer.getheader("X-Request-Id")) == (200, f"id-{number}")
            said = {"method": "POST", "path": f"/{number}", "body": "body"}
            assert json.loads(answer.content) == {**said, "request_id": f"id-{number}"}
        assert len(server.journal.connections) == 1
        entry = server.journal[0]
        assert (entry.connection, entry.method, entry.path) == (0, "POST", "/0")
        assert (entry.body, entry.request_id, entry.headers["host"]) == (b"body", "id-0", "test")
        assert entry.processed and entry.answered and entry.step == script[0]
        server.close()
        server.close()
        wait_readable(client.sock)
        with pytest.raises(OSError):
            server.connect()


GET = b"GET / HTTP/1.1"
CHUNKS = b"\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: x"
REPEAT = Respond(body=lambda request: request.body)
#: a message, the step it meets, status and body of the answer, whether the connection stays
MESSAGES = {
    "HEAD": (b"HEAD / HTTP/1.1", Respond(body=b"12345"), 200, b"", True),
    "204": (GET, Respond(204), 204, b"", True),
    "304": (GET, Respond(304), 304, b"", True),
    "no common status": (GET, Respond(999, b"odd"), 999, b"odd", True),
    "chunked": (b"POST / HTTP/1.1" + CHUNKS, REPEAT, 200, b"Wikipedia", True),
    "wants to close": (GET + b"\r\nConnection: close", Respond(), 200, b"", False),
    "HTTP/1.0": (b"GET / HTTP/1.0", Respond(), 200, b"", False),
    "no request line": (b"\x16\x03\x01 hi", Respond(), 400, b"not an HTTP/1 request line.*", False),
    "no header line": (GET + b"\r\nno colon", Respond(), 400, b"not a header line.*", False),
}


@pytest.mark.parametrize("message, step, status, body, stays", MESSAGES.values(), ids=MESSAGES)
def test_a_message_in_small_pieces_and_the_frame_of_its_answer(message, step, status, body, stays):
    message += b"\r\n\r\n"
    with connected([step]) as (server, client):
        for at in range(0, len(message), 7):
            client.sock.sendall(message[at : at + 7])
        answer = client.receive(message.split()[0].decode())
        assert answer.status == status
        assert re.fullmatch(body, answer.content)
        if stays:
            assert client.ask().status == 200, "nothing of the first answer is left over"
        else:
            assert_eof(client.sock)
    assert len(server.journal) == (status != 400) + stays
    assert ("answered 400" in str(server.journal)) == (status == 400)


def test_expect_100_continue():
    with connected([REPEAT]) as (_, client):
        client.sock.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        wait_readable(client.sock)
        assert client.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sock.sendall(b"body")
        assert client.receive().content == b"body"


@pytest.mark.parametrize(
    "step, sends, least_s",
    [
        (Respond(201, b"mine", headers={"Keep-Alive": "timeout=5"}, delay_s=0.05), 1, 0.05),
        (testing.RespondThenClose(201, b"mine"), 1, 0),
        (testing.SurplusWithAnswer(status=201, body=b"mine"), 1, 0),
        (testing.SlowAnswer(0.05, b"mine", pieces=4), 5, 0.05),
        (testing.SlowAnswer(0, b""), 1, 0),
    ],
    ids=str,
)
def test_an_answer_is_written_down_by_the_time_the_client_can_know(step, sends, least_s):
    """The client may look into the journal while the server is still in its last send."""
    seen = []

    class Watched(testing.AnswerStep):
        def answer(self, exchange):
            send = exchange.send
            exchange.send = lambda data: (send(data), seen.append(exchange.entry.answered))
            step.answer(exchange)

    with connected([Watched()]) as (server, client):
        sent_at = time.monotonic()
        answer = client.ask()
        assert time.monotonic() - sent_at >= least_s
        assert (answer.status, answer.content) == (getattr(step, "status", 200), step.body)
        assert getattr(step, "headers", {}).items() <= dict(answer.getheaders()).items()
    assert seen == [False] * (sends - 1) + [True]
    assert server.journal[0].processed


@pytest.mark.parametrize("who", ["the client", "the server"])
def test_an_answer_that_cannot_be_sent_is_none(who):
    with connected([Respond(body=b"x" * 20_000_000)]) as (server, client):
        client.send()
        wait_readable(client.sock)
        # with bytes unread: RST; and the server does not wait for a client that does not read
        (client.sock if who == "the client" else server).close()
        server.wait_ended(0)
        assert (server.journal[0].processed, server.journal[0].answered) == (True, False)


NOTHING, HALF, LINE = b"", rb"HTTP/1\.1 200 OK\r\n.*\r\n\r\nx{1,999}", rb"HTTP/1\."
BYE = rb"HTTP/1\.1 200 OK\r\nContent-Length: 3\r\n%s\r\nbye"

#: a step, what the client sees before the end, the end, whether the request was processed
ENDS = [
    (testing.RespondThenClose(body=b"bye"), BYE % rb"Connection: close\r\n", "closed", True),
    (testing.RespondThenClose(body=b"bye", announced=False), BYE % b"", "closed", True),
    (Close(), NOTHING, "closed", False),
    (Close(close_notify=True), NOTHING, "closed", False),
    (testing.ProcessThenClose(), NOTHING, "closed", True),
    (testing.ProcessThenClose(close_notify=True), NOTHING, "closed", True),
    (testing.Reset(), NOTHING, "reset", False),
    (testing.ProcessThenReset(), NOTHING, "reset", True),
    (testing.HalfAnswer(), HALF, "closed", True),
    (testing.HalfAnswer(reset=True), HALF, "reset", True),
    (testing.HalfStatusLine(), LINE, "closed", True),
    (testing.HalfStatusLine(reset=True), LINE, "reset", True),
    # while idle
    (CloseAfter(0.01), NOTHING, "closed", None),
    (CloseAfter(close_notify=False), NOTHING, "closed", None),
    (testing.FinWithin(0.01), NOTHING, "closed", None),
    (testing.LingeringClose(linger_s=0.01), NOTHING, "closed", None),
    (testing.ResetAfter(0.01), NOTHING, "reset", None),
]


@pytest.mark.parametrize("step, sees, ended, processed", ENDS, ids=[str(row[0]) for row in ENDS])
def test_the_end_of_a_connection(step, sees, ended, processed, tls):
    with connected([Respond(), step], tls=tls) as (server, client):
        client.ask()
        if processed is None:
            server.wait_idle_step()
            (done,) = server.journal.idle_steps
            assert (done.connection, done.step) == (0, step)
        else:
            client.send("POST", "/pay", b"10")
        assert server.wait_ended(0) == ended
        if sees == NOTHING:
            says_goodbye = bool(tls) and getattr(step, "close_notify", False)
            assert (kernel.unread_bytes(client.sock) > 0) == says_goodbye
        assert re.fullmatch(sees, read_to_the_end(client.sock, ended), re.DOTALL)
        if processed is not None:
            entry = server.journal[-1]
            assert (entry.path, entry.processed, entry.step) == ("/pay", processed, step)
            assert entry.answered == isinstance(step, testing.RespondThenClose)


@pytest.mark.parametrize("processed, ended", [(True, "client"), (False, "stopped")])
def test_silence(processed, ended):
    with connected([testing.Silence(processed)]) as (server, client):
        client.send("POST", "/", b"10")
        server.journal.wait(lambda journal: len(journal) == 1 and journal[0].body == b"10")
        assert len(server.journal.processed()) == processed
        await_acknowledgement(client.sock)
        assert kernel.events_on(client.sock) == 0
        (client.sock if ended == "client" else server).close()
        assert server.wait_ended(0) == ended
        assert ended == "client" or client.sock.recv(1) == b""


def test_zero_window():
    body = b"x" * 4_000_000
    with connected([testing.ZeroWindow(0.5)]) as (server, client):
        sender = threading.Thread(target=client.send, args=("PUT", "/", body))
        sender.start()
        server.wait_request()
        ask = client.sock.getsockopt  # for tcpi_snd_wnd; a kernel that does not tell it has none
        kernel.wait_until(
            lambda: not any(ask(socket.IPPROTO_TCP, socket.TCP_INFO, 256)[228:232]), "window of 0"
        )
        sender.join()
        assert client.receive().status == 200
        assert server.journal[0].body == body


@pytest.mark.parametrize("step", ["CloseAfter", "ResetAfter", "HalfCloseAfter", "Surplus"])
def test_a_request_forestalls_an_idle_step(step):
    """Or the test fails by timeout."""
    late = getattr(testing, step)(seconds=60)
    with connected([Respond(), late, Respond(202)]) as (server, client):
        client.ask()
        assert client.ask().status == 202
        assert server.journal.idle_steps == []


def test_fin_within_does_not_mind_a_request():
    with connected([Respond(), testing.FinWithin(0.2, earliest_s=0.2)]) as (server, client):
        client.ask()
        client.send()
        assert server.wait_ended(0) == "closed"
        assert_reset(client.sock)  # its request lay unread
        assert len(server.journal) == 1


@pytest.mark.parametrize(
    "step, bodies, processed",
    [
        (testing.HalfCloseAfter(), [b""], 0),
        (testing.HalfCloseThenProcess(), [b"", b"10"], 1),
        (testing.LingeringClose(), [b"", b"10"], 0),
    ],
    ids=str,
)
def test_late_request_after_a_half_close(step, bodies, processed, tls):
    with connected([Respond(), step], tls=tls) as (server, client):
        client.ask()
        server.wait_idle_step()
        wait_readable(client.sock, events=POLLRDHUP)
        client.send("POST", "/late", b"10")
        await_acknowledgement(client.sock)
        server.journal.wait(lambda journal: [entry.body for entry in journal] == bodies)
        assert len(server.journal.processed("POST", "/late")) == processed
        assert server.journal.count(answered=True) == 1
        assert kernel.events_on(client.sock) == POLLIN | POLLRDHUP, "no RST"
        client.sock.close()
        assert server.wait_ended(0) == "client"


@pytest.mark.parametrize("heals_after_s", [None, 1.0], ids=["for ever", "for a time"])
def test_black_hole(heals_after_s, tls):
    with connected([Respond(), testing.BlackHole(heals_after_s)], tls=tls) as (server, client):
        client.ask()
        server.wait_idle_step()
        server.add(testing.Latency(0)).lift()  # which lets nothing through
        client.send("POST")
        assert kernel.unread_bytes(server.channels[0].sock) == 0, "not delayed: swallowed"
        assert kernel.unacknowledged_bytes(client.sock) > 0
        assert kernel.events_on(client.sock) == 0
        if heals_after_s is None:
            server.close()
            assert_reset(client.sock)
            assert server.journal.connections[0].ended == "stopped"
            assert len(server.journal) == 1
        else:
            assert client.receive().status == 200


def test_the_script_goes_across_connections():
    script = [Respond(201), CloseAfter(0), Respond(202), Respond(203)]
    with FaultServer(script, default=Respond(299)) as server:
        with RawClient(server) as first, RawClient(server) as second:
            assert server.script_left == 3
            assert first.ask().status == 201
            server.wait_idle_step()
            assert [second.ask().status for _ in range(3)] == [202, 203, 299]
            assert server.script_left == 0
            assert_eof(first.sock)
        assert [entry.connection for entry in server.journal] == [0, 1, 1, 1]


def test_idle_steps_that_stand_first_and_in_a_row():
    with connected([CloseAfter(0), Respond(), testing.Surplus(), CloseAfter(0)]) as (server, first):
        assert_eof(first.sock)
        with RawClient(server) as client:
            client.send()
            server.wait_idle_step(3)
            said = read_to_the_end(client.sock, "closed")
            assert re.findall(rb"HTTP/1.1 (\d+) ", said) == [b"200", b"408"]


class JustClose(testing.IdleStep):
    def idle(self, channel):
        channel.sock.close()
        return True


@pytest.mark.parametrize(
    "chosen, status, ended",
    [
        (Respond(204), 204, "client"),
        (CloseAfter(0), 200, "closed"),  # behind the default
        ([Respond(201), testing.ResetAfter(0)], 201, "reset"),
        ([Respond(201), JustClose()], 201, "closed"),
    ],
    ids=["an answer step", "an idle step", "both", "a step of one's own"],
)
def test_a_function_for_a_script(chosen, status, ended):
    paths = []
    with connected(lambda request: paths.append(request.path) or chosen) as (server, client):
        assert client.ask(path="/mine").status == status
        if ended == "client":
            client.sock.close()
        assert server.wait_ended(0) == ended
    assert paths == ["/mine"]


def test_perform_between_two_requests():
    with FaultServer() as server, RawClient(server) as first, RawClient(server) as second:
        first.ask()
        second.ask()
        server.perform(testing.ResetAfter(0), connection=0)
        assert_reset(first.sock)
        assert second.ask().status == 200
        server.perform(testing.Surplus(503, b"late", seconds=0))
        assert wait_readable(second.sock) == POLLIN
        assert second.receive().content == b"late"
        assert second.ask().status == 200, "the connection stays open"


def test_handshakes_that_are_not_finished():
    """By a client that refuses the certificate; and close() does not wait for one."""

    def has_read():
        newest = server.channels[-1]
        is_shaking_hands = newest.number == 1 and isinstance(newest.sock, ssl.SSLSocket)
        return is_shaking_hands and kernel.unread_bytes(newest.sock) == 0

    with FaultServer(tls=TLS()) as server:
        with urllib3.HTTPSConnectionPool("127.0.0.1", server.port, retries=False) as pool:
            with pytest.raises(urllib3.exceptions.SSLError):
                pool.request("GET", "/")
        assert server.wait_ended(0) == "client"
        assert "no TLS handshake: " in str(server.journal)
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            server.journal.wait(lambda journal: len(journal.connections) == 2)
            sock.sendall(b"\x16\x03\x01")  # a part of the head of its record
            await_acknowledgement(sock)
            kernel.wait_until(has_read, "a server that has read that")
            server.close()
            assert_eof(sock)
            assert server.wait_ended(1) == "stopped"


def test_proxy(tls):
    with FaultServer(default=Respond(body=testing.echo), tls=tls) as server:
        with testing.proxy() as proxy:
            with urllib3.ProxyManager(proxy.url, ca_certs=TLS().ca_path) as pool:
                for number in range(2):
                    answer = pool.request("POST", f"{server.url}path?{number}", body=b"body")
                    said = json.loads(answer.data)
                    assert (said["path"], said["body"]) == (f"/path?{number}", "body")
                assert pool.request("HEAD", server.url).headers["Content-Length"] != "0"
            assert len(proxy.journal.connections) == 1
            assert proxy.tunnels == ([f"127.0.0.1:{server.port}"] if tls else [])
            assert len(proxy.forwarded) == (0 if tls else 3)


def tunnel(proxy, server):
    client = RawClient(proxy)
    client.sock.sendall(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n\r\n".encode())
    assert client.sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    return client


def test_tunnel_hands_on_what_the_server_does():
    script = [Respond(201), testing.HalfCloseThenProcess(), Respond(202), testing.Reset()]
    with FaultServer(script) as server, testing.ConnectProxy() as proxy:
        with tunnel(proxy, server) as client:
            assert client.ask().status == 201
            server.wait_idle_step()
            assert_eof(client.sock)
            client.send("POST")
            server.journal.wait(lambda journal: len(journal.processed("POST")) == 1)
        assert server.wait_ended(0) == "client"
        with tunnel(proxy, server) as client:
            assert client.ask().status == 202
            client.send()
            assert_reset(client.sock)


@pytest.mark.parametrize("reset", [False, True])
def test_proxy_cuts_its_tunnels(reset):
    with FaultServer() as server, testing.ConnectProxy() as proxy:
        with tunnel(proxy, server) as first, tunnel(proxy, server) as second:
            assert proxy.cut(reset) == 2
            for client in (first, second):
                (assert_reset if reset else assert_eof)(client.sock)
            assert proxy.cut() == 0


def test_proxy_to_nowhere():
    with FaultServer() as server:
        nowhere = server.origin
    with testing.ConnectProxy(tls=TLS()) as proxy, RawClient(proxy) as client:
        assert proxy.origin.startswith("https:")
        assert client.ask("GET", nowhere + "/").status == 502
        assert client.ask("CONNECT", nowhere[len("http://") :]).status == 502


@pytest.mark.parametrize("world", lanes.first(1, ["eventlet", "gevent"]))
def test_no_server_where_pytest_socket_has_undone_a_monkey_patch(world, run_python):
    script = """
        import _socket, socket, pytest, stalepool_testing
        socket.socket = _socket.socket
        with pytest.raises(RuntimeError, match="^sockets are native again .* use -p no:socket$"):
            stalepool_testing.FaultServer()
    """
    run_python(script, world=world)
