"""Each step of the fault server, and the proxy, seen by a raw client."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading

import pytest
import urllib3

import lanes
import stalepool_testing as testing
from pools import VERIFIES_NAMES_ALONE
from raw_client import RawClient, assert_eof, assert_reset
from stalepool_testing import TLS, Close, CloseAfter, FaultServer, Respond, kernel, wait_readable
from stalepool_testing.kernel import POLLIN, POLLRDHUP
from worlds import WITH_TESTS

FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6, "unix": socket.AF_UNIX}


@pytest.fixture(params=[*FAMILIES, "TLSv1.2", "TLSv1.3"])
def transport(request):
    family = FAMILIES.get(request.param)
    return {"tls": TLS(request.param)} if family is None else {"family": family}


@pytest.fixture(params=["plain", "tls"])
def plain_or_tls(request):
    return {"tls": TLS()} if request.param == "tls" else {}


def read_to_the_end(sock, ended):
    """Return what comes before the end, which is a FIN or an RST."""
    events = wait_readable(sock, events=POLLRDHUP)
    assert (events == POLLRDHUP) == (ended == "closed"), "a FIN, and no RST after it"
    end = contextlib.nullcontext() if ended == "closed" else pytest.raises(ConnectionResetError)
    if isinstance(sock, ssl.SSLSocket):
        end = contextlib.suppress(OSError)  # each version of OpenSSL says it in its own way
    came = b""
    with end:
        while data := sock.recv(10000):
            came += data
    return came


def await_acknowledgement(sock):
    kernel.wait_until(lambda: kernel.unacknowledged_bytes(sock) == 0, "acknowledgement")


# -- answers -------------------------------------------------------------------------------


def test_respond_on_every_transport(transport):
    with FaultServer(default=Respond(body=testing.echo), **transport) as server:
        with RawClient(server) as client:
            for number in range(3):
                answer = client.ask("POST", f"/{number}", b"body", X_Request_Id=f"id-{number}")
                assert answer.status == 200
                assert answer.getheader("X-Request-Id") == f"id-{number}"
                assert json.loads(answer.content) == {
                    "method": "POST",
                    "path": f"/{number}",
                    "request_id": f"id-{number}",
                    "body": "body",
                }
        assert server.wait_ended(0) == "client"
        assert len(server.journal.connections) == 1
        entry = server.journal[0]
        assert (entry.connection, entry.method, entry.path) == (0, "POST", "/0")
        assert (entry.body, entry.request_id, entry.headers["host"]) == (b"body", "id-0", "test")
        assert entry.processed and entry.answered and entry.step == Respond(body=testing.echo)


@pytest.mark.parametrize(
    "method, status, body",
    [("HEAD", 200, b"12345"), ("GET", 204, b""), ("GET", 304, b""), ("GET", 418, b"teapot")],
)
def test_framing(method, status, body):
    with FaultServer([Respond(status, body)]) as server, RawClient(server) as client:
        answer = client.ask(method)
        assert answer.status == status
        assert answer.content == (b"" if method == "HEAD" else body)
        assert client.ask().status == 200, "nothing of the first answer is left over"
    assert server.journal.count() == 2


def test_respond_with_headers_and_a_delay():
    step = Respond(201, headers={"Keep-Alive": "timeout=5"}, delay_s=0.05)
    with FaultServer([step]) as server, RawClient(server) as client:
        client.send()
        server.wait_request()
        assert kernel.events_on(client.sock) == 0
        answer = client.receive()
        assert (answer.status, answer.getheader("Keep-Alive")) == (201, "timeout=5")


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: x"
GET = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize(
    "message, status, stays, says",
    [
        (b"POST / HTTP/1.1\r\n" + CHUNKED, 200, True, "processed, 9 bytes of body"),
        (GET + b"Connection: close", 200, False, "answered"),
        (b"GET / HTTP/1.0", 200, False, "answered"),
        (b"\x16\x03\x01 hello", 400, False, "not an HTTP/1 request line"),
        (GET + b"no colon", 400, False, "not a header line"),
    ],
    ids=["chunked", "wants to close", "HTTP/1.0", "no request line", "no header line"],
)
def test_a_message_in_small_pieces(message, status, stays, says):
    message += b"\r\n\r\n"
    with FaultServer() as server, RawClient(server) as client:
        for at in range(0, len(message), 7):
            client.sock.sendall(message[at : at + 7])
        assert client.receive().status == status
        if stays:
            assert client.ask().status == 200
        else:
            assert_eof(client.sock)
    assert says in str(server.journal)
    assert len(server.journal) == (status == 200) + stays
    assert not stays or server.journal[0].body == b"Wikipedia"


def test_expect_100_continue():
    with FaultServer() as server, RawClient(server) as client:
        client.sock.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        wait_readable(client.sock)
        assert client.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sock.sendall(b"body")
        assert client.receive().status == 200
    assert server.journal[0].body == b"body"


def test_pipelined_requests():
    with FaultServer([Respond(201), Respond(202)]) as server, RawClient(server) as client:
        client.sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 2)
        server.wait_request(2)
        received = b""
        while received.count(b"\r\n\r\n") < 2:
            received += client.sock.recv(10000) or pytest.fail("EOF")
        assert re.findall(rb"^HTTP/1.1 (\d+) ", received, re.MULTILINE) == [b"201", b"202"]
        assert server.journal.count(answered=True) == 2


@pytest.mark.parametrize(
    "step",
    [
        *(Respond(), testing.RespondThenClose(), testing.SurplusWithAnswer()),
        *(testing.SlowAnswer(0), testing.SlowAnswer(0, b"")),
    ],
    ids=str,
)
def test_it_is_written_down_by_the_time_the_client_can_know(step):
    """The client may look into the journal while the server is still in its last send."""
    seen = []

    class Watched(testing.AnswerStep):
        def answer(self, exchange):
            send = exchange.send

            def watched(data):
                send(data)
                seen.append(exchange.entry.answered)

            exchange.send = watched
            step.answer(exchange)

    with FaultServer([Watched()]) as server, RawClient(server) as client:
        client.ask()
        server.wait_request()
    assert seen[-1] is True
    assert not any(seen[:-1]), "not before the last of it"
    assert server.journal[0].processed


def test_an_answer_that_cannot_be_sent_is_none():
    with FaultServer([Respond(body=b"x" * 20_000_000)]) as server, RawClient(server) as client:
        client.send()
        wait_readable(client.sock)
        client.sock.close()  # with bytes unread: RST
        assert server.wait_ended(0) == "client"
        assert not server.journal[0].answered
        assert server.journal[0].processed


@pytest.mark.parametrize("announced", [True, False])
def test_respond_then_close(announced, plain_or_tls):
    step = testing.RespondThenClose(body=b"bye", announced=announced)
    with FaultServer([step], **plain_or_tls) as server, RawClient(server) as client:
        answer = client.ask()
        assert answer.content == b"bye"
        assert answer.getheader("Connection") == ("close" if announced else None)
        assert_eof(client.sock)
        assert server.wait_ended(0) == "closed"


def test_slow_answer():
    step = testing.SlowAnswer(0.2, b"0123456789", pieces=5)
    with FaultServer([step]) as server, RawClient(server) as client:
        client.send()
        pieces = []
        while sum(map(len, pieces[1:])) < 10:
            pieces.append(client.sock.recv(1000))
        assert pieces[0].endswith(b"\r\n\r\n"), "the head comes first"
        assert b"".join(pieces[1:]) == b"0123456789"
        assert len(pieces) > 2
        assert client.ask().status == 200
        assert server.journal[0].answered


@pytest.mark.usefixtures("small_reads")
def test_surplus_with_answer(plain_or_tls):
    with FaultServer([testing.SurplusWithAnswer(body=b"mine")], **plain_or_tls) as server:
        with RawClient(server) as client:
            assert client.ask(X_Request_Id="1").content == b"mine"
            if plain_or_tls:
                assert client.sock.pending() > 0
                assert kernel.events_on(client.sock) == 0
            else:
                assert kernel.events_on(client.sock) == POLLIN
            surplus = client.receive()
            assert surplus.status == 408
            assert surplus.getheader("X-Request-Id") is None


# -- no answer -----------------------------------------------------------------------------


#: what the client sees before the end
SEES = {
    "nothing": b"",
    "half": rb"HTTP/1\.1 200 OK\r\n.*\r\n\r\nx{1,999}",
    "half a line": rb"HTTP/1\.",
}


@pytest.mark.parametrize(
    "step, sees, ended, processed",
    [
        (Close(), "nothing", "closed", False),
        (Close(close_notify=True), "nothing", "closed", False),
        (testing.ProcessThenClose(), "nothing", "closed", True),
        (testing.ProcessThenClose(close_notify=True), "nothing", "closed", True),
        (testing.Reset(), "nothing", "reset", False),
        (testing.ProcessThenReset(), "nothing", "reset", True),
        (testing.HalfAnswer(), "half", "closed", True),
        (testing.HalfAnswer(reset=True), "half", "reset", True),
        (testing.HalfStatusLine(), "half a line", "closed", True),
        (testing.HalfStatusLine(reset=True), "half a line", "reset", True),
    ],
    ids=str,
)
def test_no_answer(step, sees, ended, processed, plain_or_tls):
    with FaultServer([Respond(), step], **plain_or_tls) as server, RawClient(server) as client:
        client.ask()
        client.send("POST", "/pay", b"10")
        assert server.wait_ended(0) == ended
        if sees == "nothing":
            says_goodbye = bool(plain_or_tls) and getattr(step, "close_notify", False)
            assert (kernel.unread_bytes(client.sock) > 0) == says_goodbye
        assert re.fullmatch(SEES[sees], read_to_the_end(client.sock, ended), re.DOTALL)
        entry = server.journal[-1]
        assert (entry.path, entry.processed, entry.answered) == ("/pay", processed, False)
        assert entry.step == step


@pytest.mark.parametrize("processed, ended", [(True, "client"), (False, "stopped")])
def test_silence(processed, ended):
    with FaultServer([testing.Silence(processed)]) as server, RawClient(server) as client:
        client.send("POST", "/", b"10")
        server.journal.wait(lambda journal: len(journal) == 1 and journal[0].body == b"10")
        assert len(server.journal.processed()) == processed
        await_acknowledgement(client.sock)
        assert kernel.events_on(client.sock) == 0
        if ended == "client":
            client.sock.close()
        else:
            server.close()
            assert_eof(client.sock)
        assert server.wait_ended(0) == ended


def send_window(sock):
    """The window the peer offers, tcpi_snd_wnd; 0 where the kernel does not tell it."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[228:232], "little")


def test_zero_window():
    body = b"x" * 4_000_000
    with FaultServer([testing.ZeroWindow(0.5)]) as server, RawClient(server) as client:
        sender = threading.Thread(target=client.send, args=("PUT", "/", body))
        sender.start()
        server.wait_request()
        kernel.wait_until(lambda: send_window(client.sock) == 0, "window of 0")
        sender.join()
        assert client.receive().status == 200
        assert server.journal[0].body == body


# -- while idle ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, ended, close_notify",
    [
        (CloseAfter(0.01), "closed", True),
        (CloseAfter(close_notify=False), "closed", False),
        (testing.FinWithin(0.01), "closed", False),
        (testing.LingeringClose(linger_s=0.01), "closed", False),
        (testing.ResetAfter(0.01), "reset", False),
    ],
    ids=str,
)
def test_the_end_of_an_idle_connection(step, ended, close_notify, plain_or_tls):
    with FaultServer([Respond(), step], **plain_or_tls) as server, RawClient(server) as client:
        client.ask()
        server.wait_idle_step()
        assert server.wait_ended(0) == ended
        assert (kernel.unread_bytes(client.sock) > 0) == (bool(plain_or_tls) and close_notify)
        assert read_to_the_end(client.sock, ended) == b""
        (done,) = server.journal.idle_steps
        assert (done.connection, done.step) == (0, step)


@pytest.mark.parametrize(
    "step",
    [
        CloseAfter(60),
        testing.ResetAfter(60),
        testing.HalfCloseAfter(60),
        testing.Surplus(seconds=60),
    ],
)
def test_a_request_forestalls_an_idle_step(step):
    """Or the test fails by timeout."""
    with FaultServer([Respond(), step, Respond(202)]) as server, RawClient(server) as client:
        client.ask()
        assert client.ask().status == 202
        assert server.journal.idle_steps == []


def test_fin_within_does_not_mind_a_request():
    with FaultServer([Respond(), testing.FinWithin(0.2, earliest_s=0.2)]) as server:
        with RawClient(server) as client:
            client.ask()
            client.send()
            assert server.wait_ended(0) == "closed"
            assert_reset(client.sock)  # its request lay unread
            assert len(server.journal) == 1


@pytest.mark.parametrize(
    "step, is_read, processed",
    [
        (testing.HalfCloseAfter(), False, False),
        (testing.HalfCloseThenProcess(), True, True),
        (testing.LingeringClose(), True, False),
    ],
    ids=str,
)
def test_late_request_after_a_half_close(step, is_read, processed, plain_or_tls):
    with FaultServer([Respond(), step], **plain_or_tls) as server:
        with RawClient(server) as client:
            client.ask()
            server.wait_idle_step()
            wait_readable(client.sock, events=POLLRDHUP)
            client.send("POST", "/late", b"10")
            await_acknowledgement(client.sock)
            bodies = [b"", b"10"] if is_read else [b""]
            server.journal.wait(lambda journal: [entry.body for entry in journal] == bodies)
            assert len(server.journal.processed("POST", "/late")) == processed
            assert server.journal.count(answered=True) == 1
            assert kernel.events_on(client.sock) == POLLIN | POLLRDHUP, "no RST"
        assert server.wait_ended(0) == "client"


def test_black_hole(plain_or_tls):
    with FaultServer([Respond(), testing.BlackHole()], **plain_or_tls) as server:
        with RawClient(server) as client:
            client.ask()
            server.wait_idle_step()
            client.send("POST")
            assert kernel.unread_bytes(server.channels[0].sock) == 0, "not delayed: swallowed"
            assert kernel.unacknowledged_bytes(client.sock) > 0
            assert kernel.events_on(client.sock) == 0
            server.close()
            assert_reset(client.sock)
            assert server.journal.connections[0].ended == "stopped"
            assert len(server.journal) == 1


def test_black_hole_that_heals():
    with FaultServer([Respond(), testing.BlackHole(0.1)]) as server, RawClient(server) as client:
        client.ask()
        server.wait_idle_step()
        client.send("POST")
        assert kernel.unacknowledged_bytes(client.sock) > 0
        assert client.receive().status == 200


# -- the script ----------------------------------------------------------------------------


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
    script = [CloseAfter(0), Respond(), testing.Surplus(), CloseAfter(0)]
    with FaultServer(script) as server:
        with RawClient(server) as first:
            assert_eof(first.sock)
        with RawClient(server) as client:
            client.send()
            server.wait_idle_step(3)
            wait_readable(client.sock, events=POLLRDHUP)
            said = client.sock.recv(10000)
            assert said.index(b"HTTP/1.1 200 ") < said.index(b"HTTP/1.1 408 ")
            assert_eof(client.sock)


def test_a_function_for_a_script(plain_or_tls):
    def script(request):
        both = [Respond(201), testing.ResetAfter(0)]
        steps = {"/close": Close(), "/idle": CloseAfter(0), "/both": both}
        return steps.get(request.path, Respond(204))

    with FaultServer(script, **plain_or_tls) as server:
        with RawClient(server) as client:
            assert client.ask().status == 204
            assert client.ask(path="/idle").status == 200, "the default, then the idle step"
            assert server.wait_ended(0) == "closed"
        with RawClient(server) as client:
            assert client.ask(path="/both").status == 201
            assert server.wait_ended(1) == "reset"
        with RawClient(server) as client:
            client.send(path="/close")
            assert server.wait_ended(2) == "closed"


def test_steps_of_ones_own():
    class Hello(testing.AnswerStep):
        def answer(self, exchange):
            exchange.process()
            exchange.channel.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    class JustClose(testing.IdleStep):
        def idle(self, channel):
            channel.sock.close()
            return True

    with FaultServer([Hello(), JustClose()]) as server, RawClient(server) as client:
        assert client.ask().content == b"hello"
        assert_eof(client.sock)
        assert server.wait_ended(0) == "closed"


# -- synchronising with it -----------------------------------------------------------------


def test_perform_between_two_requests(plain_or_tls):
    with FaultServer(**plain_or_tls) as server:
        with RawClient(server) as first, RawClient(server) as second:
            first.ask()
            second.ask()
            server.perform(testing.ResetAfter(0), connection=0)
            assert_reset(first.sock)
            assert second.ask().status == 200
            server.perform(testing.Surplus(503, b"late", seconds=0))
            assert wait_readable(second.sock) == POLLIN
            assert second.receive().content == b"late"
            assert second.ask().status == 200, "the connection stays open"
            server.perform(CloseAfter(0))
            wait_readable(second.sock, events=POLLRDHUP)


def test_close_ends_everything_and_may_be_called_twice(transport):
    server = FaultServer(**transport)
    with RawClient(server) as client:
        client.ask()
        server.close()
        server.close()
        wait_readable(client.sock)
        with pytest.raises(OSError):
            server.connect()


def test_close_does_not_wait_for_a_handshake():
    with FaultServer(tls=TLS()) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            server.journal.wait(lambda journal: len(journal.connections) == 1)
            server.close()
            assert_eof(sock)


def test_close_does_not_wait_for_a_client_that_does_not_read():
    with FaultServer(default=Respond(body=b"x" * 20_000_000)) as server:
        with RawClient(server) as client:
            client.send()
            server.journal.wait(lambda journal: len(journal.processed()) == 1)
            server.close()


def test_a_client_that_refuses_the_certificate():
    with FaultServer(tls=TLS()) as server:
        with urllib3.HTTPSConnectionPool("127.0.0.1", server.port, retries=False) as pool:
            with pytest.raises(urllib3.exceptions.SSLError):
                pool.request("GET", "/")
        assert server.wait_ended(0) == "client"
        assert "no TLS handshake: " in str(server.journal)


def test_addresses():
    with FaultServer() as server:
        assert server.url == f"http://127.0.0.1:{server.port}/" == server.origin + "/"
    with FaultServer(family=socket.AF_INET6, tls=TLS()) as server:
        assert server.origin == f"https://[::1]:{server.port}"
    with FaultServer(family=socket.AF_UNIX) as server:
        assert server.path and server.port == 0
        assert server.origin.startswith("http+unix://%2F")


@pytest.mark.parametrize("world", lanes.first(1, ["eventlet", "gevent"]))
def test_a_client_that_goes_is_no_error_of_its_green_neighbour(world, run_python):
    found = run_python(
        """
        import json, ssl, sys
        from worlds import enter
        enter(sys.argv[1])
        from stalepool_testing import *
        from stalepool_testing import kernel
        with FaultServer([SlowAnswer(0.5)], tls=TLS()) as server:
            goes, stays = server.connect(), server.connect()
            goes.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
            goes.recv(9)
            kernel.reset(goes)
            stays.setblocking(False)
            server.wait_ended(0)  # by a send that failed
            try:
                stays.recv(1)
            except OSError as error:
                print(json.dumps(type(error).__name__))
            stays.close()
        """,
        world,
        env=WITH_TESTS,
        flags=("-Wignore",),
    )
    assert found == "SSLWantReadError"


# -- the proxy -----------------------------------------------------------------------------


@pytest.mark.parametrize("server_tls", [False, True])
@pytest.mark.parametrize("proxy_tls", [False, True])
def test_proxy(server_tls, proxy_tls):
    if VERIFIES_NAMES_ALONE and server_tls and proxy_tls:
        pytest.skip("needs urllib3 1.26.7 or later")
    tls = TLS()
    with FaultServer(default=Respond(body=testing.echo), tls=tls if server_tls else None) as server:
        with testing.ConnectProxy(tls=tls if proxy_tls else None) as proxy:
            with urllib3.ProxyManager(proxy.url, ca_certs=tls.ca_path) as pool:
                for number in range(2):
                    answer = pool.request("POST", f"{server.url}path?{number}", body=b"body")
                    assert json.loads(answer.data)["path"] == f"/path?{number}"
                    assert json.loads(answer.data)["body"] == "body"
                assert pool.request("HEAD", server.url).status == 200
            assert len(proxy.journal.connections) == 1
            assert proxy.tunnels == ([f"127.0.0.1:{server.port}"] if server_tls else [])
            assert len(proxy.forwarded) == (0 if server_tls else 3)


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
    with testing.ConnectProxy() as proxy, RawClient(proxy) as client:
        assert client.ask("GET", nowhere + "/").status == 502
        assert client.ask("CONNECT", nowhere[len("http://") :]).status == 502
