"""The journal as a reader sees it, and waits that time out."""

import re

import pytest
import urllib3

from raw_client import connected
from stalepool_testing import AnswerStep, CloseAfter, FaultServer, Reset, ResetAfter, Respond


def what_happened(server):
    """The lines without times and ports."""
    server.close()
    return [re.sub(r"port is \d+", "port is N", f"{c} {s}") for _, c, s in server.journal.lines]


def test_all_that_happened_a_line_each():
    with connected([Respond(201), ResetAfter(0), Reset()]) as (server, client):
        client.ask("POST", body=b"12345")
        server.wait_idle_step()
        with server.connect() as sock:
            sock.sendall(b"GET /next HTTP/1.1\r\n\r\n")
            server.wait_ended(1)
        assert what_happened(server) == [
            "0 a client connects, its port is N",
            "0 request 0: POST / meets Respond(status=201)",
            "0 request 0: processed, 5 bytes of body",
            "0 request 0: answered",
            "0 reset by the server",
            "0 ResetAfter() done",
            "1 a client connects, its port is N",
            "1 request 1: GET /next meets Reset()",
            "1 reset by the server",
        ]
    assert [entry.number for entry in server.journal] == [0, 1]
    times = [line.at_s for line in server.journal.lines]
    assert times == sorted(times) and times[0] >= 0
    assert re.match(r" +\d+\.\d{3} ms  connection 0  a client", str(server.journal))
    assert len(str(server.journal).splitlines()) == 9
    assert repr(server.journal) == "<Journal: 2 connections, 2 requests>"


@pytest.mark.parametrize(
    "requests, headers, why",
    [
        (2, {}, "0 CloseAfter(seconds=60) not done: a request came first"),
        (1, {}, "0 CloseAfter(seconds=60) not done: the client had gone"),
        (1, {"Connection": "close"}, "0 CloseAfter(seconds=60) not done: the connection is over"),
    ],
)
def test_a_step_that_was_not_taken_says_why(requests, headers, why):
    with FaultServer([Respond(200), CloseAfter(60)]) as server:
        with urllib3.PoolManager(retries=False, headers=headers) as pool:
            for _ in range(requests):
                pool.request("GET", server.url)
        server.wait_ended()
    assert why in what_happened(server)


def test_waits_name_what_they_waited_for():
    with FaultServer([Respond(200), CloseAfter(60), Reset()]) as server:
        with pytest.raises(TimeoutError, match=r"no request 0, .* meet Respond\(\)") as said:
            server.wait_request(timeout_s=0.01)
        assert "no client has connected" in str(said.value)
        with server.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            server.wait_request()
        for wait, number, words in (
            (server.wait_request, 2, r"no request 1, which was to meet Reset\(\)"),
            (server.wait_request, 9, r"no request 8, which was to meet Respond\(\)"),
            (server.wait_idle_step, 1, r"idle step 0, CloseAfter\(seconds=60\)"),
            (server.wait_idle_step, 2, r"no idle step 1 \(none is listed\) within"),
            (server.wait_ended, 7, "end of connection 7"),
        ):
            with pytest.raises(TimeoutError, match=words) as said:
                wait(number, timeout_s=0.01)
            assert "request 0: GET / meets Respond()" in str(said.value)


class Broken(AnswerStep):
    def answer(self, exchange):
        raise KeyError("a mistake")


@pytest.mark.parametrize("script", [[Broken()], Broken().answer], ids=["a step", "a function"])
def test_a_wait_ends_as_soon_as_the_server_has_failed(script):
    server = FaultServer(script)
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(KeyError, match="a mistake"):
            server.wait_request(2, timeout_s=60)
    with pytest.raises(KeyError):
        server.close()
    assert server.journal.connections[0].ended == "stopped"


def test_an_error_that_leaves_the_block_takes_the_journal_along():
    with pytest.raises(AssertionError) as raised, connected() as (server, client):
        client.ask()
        raise AssertionError("not as it should be")
    said = "\n".join([str(raised.value), *getattr(raised.value, "__notes__", ())])
    assert said.startswith("not as it should be\n")
    assert said.count(f"FaultServer {server.origin}") == 1
    assert "request 0: GET / meets Respond()" in said


def test_a_step_in_words():
    assert str(Respond()) == "Respond()"
    assert str(Respond(404, delay_s=1)) == "Respond(status=404, delay_s=1)"
    assert str(Respond(body=b"x" * 1000)) == "Respond(body=b'xxxxxxxxxxx...xxxxxxxxxxxxx')"
