"""Wrong arguments, told where they are written, by what is accepted."""

from __future__ import annotations

import math
import socket
from typing import Any, Callable

import pytest
import urllib3

import stalepool_testing as testing
from pools import get, pool_for
from stalepool_testing import (
    BlackHole,
    CloseAfter,
    FaultServer,
    Latency,
    Reset,
    ResetAfter,
    Respond,
)

STATUS, BODY = "a status from 100 to 999", "bytes, or a function of the request"
COUNT, DIRECTION = "a whole number from 1", "'up' or 'down'"


@pytest.mark.parametrize(
    "step, wrong, error, accepts",
    [
        (Respond, {"status": "x"}, TypeError, STATUS),
        (Respond, {"status": 99999}, ValueError, STATUS),
        (Respond, {"status": 99}, ValueError, STATUS),
        (Respond, {"status": True}, TypeError, STATUS),
        (Respond, {"body": "text"}, TypeError, BODY),
        (Respond, {"headers": "text"}, TypeError, "a mapping"),
        (Respond, {"delay_s": -1}, ValueError, "seconds from 0"),
        (testing.RespondThenClose, {"body": None}, TypeError, BODY),
        (testing.SlowAnswer, {"seconds": math.nan}, ValueError, "seconds from 0"),
        (testing.SlowAnswer, {"seconds": 1, "pieces": 0}, ValueError, COUNT),
        (testing.SlowAnswer, {"seconds": 1, "pieces": 1.5}, TypeError, COUNT),
        (testing.SurplusWithAnswer, {"surplus_status": -1}, ValueError, STATUS),
        (testing.HalfAnswer, {"body": 7}, TypeError, BODY),
        (testing.ZeroWindow, {"seconds": "1"}, TypeError, "seconds from 0"),
        (CloseAfter, {"seconds": None}, TypeError, "seconds from 0"),
        (ResetAfter, {"seconds": math.inf}, ValueError, "seconds from 0"),
        (testing.FinWithin, {"seconds": 1, "earliest_s": -0.1}, ValueError, "seconds from 0"),
        (testing.HalfCloseAfter, {"seconds": False}, TypeError, "seconds from 0"),
        (testing.LingeringClose, {"linger_s": -1}, ValueError, "seconds from 0"),
        (testing.Surplus, {"body": testing.echo}, TypeError, "bytes"),
        (BlackHole, {"seconds": -1}, ValueError, "seconds from 0, or None"),
        (BlackHole, {"seconds": "1"}, TypeError, "seconds from 0, or None"),
        (Latency, {"seconds": -1}, ValueError, "seconds from 0"),
        (Latency, {"seconds": 1, "direction": "left"}, ValueError, DIRECTION),
        (testing.Bandwidth, {"bytes_per_s": 0}, ValueError, COUNT),
        (testing.ResetAtNextByte, {"direction": 1}, TypeError, DIRECTION),
    ],
)
def test_a_step_or_a_fault(step: Any, wrong: dict, error: Any, accepts: str) -> None:
    with pytest.raises(error) as refused:
        step(**wrong)
    (name, value) = list(wrong.items())[-1]
    assert str(refused.value) == f"{step.__name__}({name}={value!r}): it takes {accepts}"


def test_what_is_at_the_edge_is_taken() -> None:
    for step in Respond(999), CloseAfter(0), BlackHole(None), Respond(body=testing.echo):
        assert step == type(step)(**vars(step))


LIST = (
    r"script takes a list of steps such as \[Respond\(200\)\], or a function of the request, got "
)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: FaultServer(default=Reset), TypeError, "default takes .* class Reset: write Re"),
        (lambda: FaultServer(default=CloseAfter(0)), TypeError, "default takes .* got CloseAft"),
        (lambda: FaultServer(Respond(200)), TypeError, LIST + "Respond"),
        (lambda: FaultServer(Respond(), Reset()), TypeError, r"write \[Respond\(\), Reset\(\)\]"),
        (lambda: FaultServer(Respond), TypeError, LIST + "the class Respond: write "),
        (lambda: FaultServer("Respond"), TypeError, LIST + "'Respond'"),
        (lambda: FaultServer(None), TypeError, LIST + "None"),
        (lambda: FaultServer([Respond]), TypeError, "of steps .* got the class Respond: write Re"),
        (lambda: FaultServer([200]), TypeError, "made of steps .* got 200"),
        (
            lambda: FaultServer([testing.Close(), ResetAfter(0)]),
            ValueError,
            r"Close\(\) leaves no connection for ResetAfter\(\)",
        ),
        (lambda: FaultServer(tls=True), TypeError, r"tls takes TLS\(\) or None, got True"),
        (lambda: testing.ConnectProxy(tls="yes"), TypeError, r"tls takes TLS\(\) .* got 'yes'"),
        (lambda: testing.TLS("SSLv3"), ValueError, r"TLSv1\.2, TLSv1\.3.*'SSLv3'"),
        (lambda: testing.stale_socket("fin"), ValueError, "'fin' is no stale state: it takes eof"),
        (
            lambda: FaultServer([BlackHole()], family=socket.AF_UNIX),
            testing.Unavailable,
            "needs TCP",
        ),
    ],
)
def test_what_is_made(make: Callable[[], Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_perform() -> None:
    with FaultServer() as server:
        with pytest.raises(ValueError, match=r"no connection -1 .* ResetAfter.*: 0 clients"):
            server.perform(ResetAfter(0))
        for step in Reset(), ResetAfter:
            with pytest.raises(TypeError, match=r"takes an idle step such as ResetAfter\(0\), got"):
                server.perform(step)
        server.connect().close()
        server.wait_ended(0)
        with pytest.raises(ValueError, match=r"connection 0 is over, CloseAfter\(\) cannot be"):
            server.perform(CloseAfter(0))
        with pytest.raises(ValueError, match="there is no connection 7"):
            server.perform(CloseAfter(0), connection=7)


def test_add() -> None:
    with FaultServer() as server:
        for what in Reset(), CloseAfter(0), BlackHole(), 200, None, testing.Blackout:
            with pytest.raises(TypeError, match=r"add\(\) takes a fault .*\(0.2\), got") as said:
                server.add(what)
        assert "got the class Blackout: write Blackout(...)" in str(said.value)
        latency = server.add(Latency(1))
    latency.lift()
    with pytest.raises(ValueError, match=r"the server is closed, Latency.* cannot be added"):
        server.add(Latency(1))


@pytest.mark.parametrize("chosen", [None, 200, Respond], ids=str)
def test_what_a_function_returns(chosen: Any) -> None:
    server = FaultServer(lambda request: chosen)
    with pool_for(server) as pool, pytest.raises(urllib3.exceptions.HTTPError):
        get(pool)
    with pytest.raises(TypeError, match="a script function returns a step or a list, got"):
        server.close()
