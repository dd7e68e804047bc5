"""The journal as a reader sees it, and waits that time out."""

from __future__ import annotations

import re
from typing import Any, Iterator, List

import pytest
import urllib3

from stalepool_testing import (
    AnswerStep,
    CloseAfter,
    FaultServer,
    Reset,
    ResetAfter,
    Respond,
    stalepool_off,
)


@pytest.fixture(autouse=True)
def stock() -> Iterator[None]:
    with stalepool_off():
        yield


def what_happened(server: FaultServer) -> List[str]:
    """The lines without times and ports."""
    server.close()
    return [
        re.sub(r"port is \d+", "port is N", f"{c} {what}") for _, c, what in server.journal.lines
    ]


def get(server: FaultServer, times: int = 1, **options: object) -> None:
    with urllib3.PoolManager(retries=False, **options) as pool:
        for _ in range(times):
            pool.request("POST", server.url, body=b"12345")


def test_all_that_happened_a_line_each() -> None:
    with FaultServer([Respond(201), ResetAfter(0), Reset()]) as server:
        with urllib3.PoolManager(retries=False) as pool:
            pool.request("POST", server.url, body=b"12345")
            server.wait_idle_step()
            with pytest.raises(urllib3.exceptions.ProtocolError):
                pool.request("GET", server.url + "next")
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


def test_a_step_that_was_not_taken_says_why() -> None:
    with FaultServer([Respond(200), CloseAfter(60), Respond(200), CloseAfter(60)]) as server:
        get(server, 2)
        server.wait_ended()
    lines = what_happened(server)
    assert "0 CloseAfter(seconds=60) not done: a request came first" in lines
    assert lines[-1] == "0 CloseAfter(seconds=60) not done: the client had gone"


def test_a_step_behind_connection_close_says_so() -> None:
    with FaultServer([Respond(200), CloseAfter(0)]) as server:
        get(server, headers={"Connection": "close"})
    assert what_happened(server)[-1] == "0 CloseAfter() not done: the connection is over"


def test_waits_name_what_they_waited_for() -> None:
    with FaultServer([Respond(200), CloseAfter(60), Reset()]) as server:
        with pytest.raises(TimeoutError, match=r"no request 0, .* meet Respond\(\)") as said:
            server.wait_request(timeout_s=0.01)
        assert "no client has connected" in str(said.value)
        get(server)
        for wait, words in (
            (lambda: server.wait_request(2, 0.01), r"no request 1, which was to meet Reset\(\)"),
            (lambda: server.wait_request(9, 0.01), r"no request 8, which was to meet Respond\(\)"),
            (lambda: server.wait_idle_step(1, 0.01), r"idle step 0, CloseAfter\(seconds=60\)"),
            (lambda: server.wait_idle_step(2, 0.01), "idle step 1, which the script does not have"),
            (lambda: server.wait_ended(7, 0.01), "end of connection 7"),
        ):
            with pytest.raises(TimeoutError, match=words) as said:
                wait()
            assert "request 0: POST / meets Respond()" in str(said.value)


class Broken(AnswerStep):
    def answer(self, exchange: object) -> None:
        raise KeyError("a mistake")


@pytest.mark.parametrize("script", [[Broken()], Broken().answer], ids=["a step", "a function"])
def test_a_wait_ends_as_soon_as_the_server_has_failed(script: Any) -> None:
    server = FaultServer(script)
    with pytest.raises(urllib3.exceptions.HTTPError):
        get(server)
    with pytest.raises(KeyError, match="a mistake"):
        server.wait_request(2, timeout_s=60)
    with pytest.raises(KeyError):
        server.close()
    assert server.journal.connections[0].ended == "stopped"


def test_an_error_that_leaves_the_block_takes_the_journal_along() -> None:
    with pytest.raises(AssertionError) as raised:
        with FaultServer() as server:
            get(server)
            raise AssertionError("not as it should be")
    said = "\n".join([str(raised.value), *getattr(raised.value, "__notes__", ())])
    assert said.startswith("not as it should be\n")
    assert f"FaultServer {server.origin}" in said
    assert "request 0: POST / meets Respond()" in said


def test_a_step_in_words() -> None:
    assert str(Respond()) == "Respond()"
    assert str(Respond(404, delay_s=1)) == "Respond(status=404, delay_s=1)"
    assert str(Respond(body=b"x" * 1000)) == "Respond(body=b'xxxxxxxxxxx...xxxxxxxxxxxxx')"
    assert str(Broken()) == "Broken()"
