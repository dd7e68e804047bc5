"""Wrong arguments, told where they are written, by what is accepted."""

import math
import socket

import pytest

import stalepool_testing as testing
from raw_client import connected
from stalepool_testing import BlackHole, CloseAfter, FaultServer, Latency, Reset, Respond

STATUS, BODY = "a status from 100 to 999", "bytes, or a function of the request"
COUNT, DIRECTION = "a whole number from 1", "'up' or 'down'"
SECONDS = "seconds from 0"


@pytest.mark.parametrize(
    "step, wrong, error, accepts",
    [
        (Respond, {"status": 99999}, ValueError, STATUS),
        (Respond, {"status": 99}, ValueError, STATUS),
        (Respond, {"status": True}, TypeError, STATUS),
        (Respond, {"body": "text"}, TypeError, BODY),
        (Respond, {"headers": "text"}, TypeError, "a mapping"),
        (Respond, {"delay_s": -1}, ValueError, SECONDS),
        (testing.RespondThenClose, {"body": None}, TypeError, BODY),
        (testing.SlowAnswer, {"seconds": math.nan}, ValueError, SECONDS),
        (testing.SlowAnswer, {"seconds": 1, "pieces": 0}, ValueError, COUNT),
        (testing.SlowAnswer, {"seconds": 1, "pieces": 1.5}, TypeError, COUNT),
        (testing.SurplusWithAnswer, {"surplus_status": -1}, ValueError, STATUS),
        (testing.HalfAnswer, {"body": 7}, TypeError, BODY),
        (testing.ZeroWindow, {"seconds": "1"}, TypeError, SECONDS),
        (CloseAfter, {"seconds": None}, TypeError, SECONDS),
        (testing.ResetAfter, {"seconds": math.inf}, ValueError, SECONDS),
        (testing.FinWithin, {"seconds": 1, "earliest_s": -0.1}, ValueError, SECONDS),
        (testing.HalfCloseAfter, {"seconds": False}, TypeError, SECONDS),
        (testing.LingeringClose, {"linger_s": -1}, ValueError, SECONDS),
        (testing.Surplus, {"body": testing.echo}, TypeError, "bytes"),
        (BlackHole, {"seconds": -1}, ValueError, "seconds from 0, or None"),
        (BlackHole, {"seconds": "1"}, TypeError, "seconds from 0, or None"),
        (Latency, {"seconds": -1}, ValueError, SECONDS),
        (Latency, {"seconds": 1, "direction": "left"}, ValueError, DIRECTION),
        (testing.Bandwidth, {"bytes_per_s": 0}, ValueError, COUNT),
        (testing.ResetAtNextByte, {"direction": 1}, TypeError, DIRECTION),
    ],
)
def test_a_step_or_a_fault(step, wrong, error, accepts):
    with pytest.raises(error) as refused:
        step(**wrong)
    (name, value) = list(wrong.items())[-1]
    assert str(refused.value) == f"{step.__name__}({name}={value!r}): it takes {accepts}"


def test_what_is_at_the_edge_is_taken():
    Respond(999), CloseAfter(0), BlackHole(None), Respond(body=testing.echo)


LIST = r"script takes a list of steps such as .*, or a function of the request, got "
IDLE_STEP = r"takes an idle step such as ResetAfter\(0\), got"
FAULT = r"add\(\) takes a fault such as Latency\(0.2\), got"
LATE, UNIX = testing.ResetAfter(0), socket.AF_UNIX


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda _: FaultServer(default=Reset), TypeError, "default takes .* class Reset: write Re"),
        (lambda _: FaultServer(default=CloseAfter(0)), TypeError, "default takes .* got CloseAft"),
        (lambda _: FaultServer(Respond(200)), TypeError, LIST + "Respond"),
        (lambda _: FaultServer(Respond(), Reset()), TypeError, r"write \[Respond\(\), Reset\(\)\]"),
        (lambda _: FaultServer(Respond), TypeError, LIST + "the class Respond: write "),
        (lambda _: FaultServer(None), TypeError, LIST + "None"),
        (lambda _: FaultServer([Respond]), TypeError, "of steps .* got the class Respond: write"),
        (lambda _: FaultServer([200]), TypeError, "made of steps .* got 200"),
        (lambda _: FaultServer([testing.Close(), LATE]), ValueError, r"Close\(\) leaves no conn"),
        (lambda _: FaultServer([BlackHole()], family=UNIX), testing.Unavailable, "needs TCP"),
        (lambda _: FaultServer(tls=True), TypeError, r"tls takes TLS\(\) or None, got True"),
        (lambda _: testing.TLS("SSLv3"), ValueError, r"TLSv1\.2, TLSv1\.3.*'SSLv3'"),
        (lambda _: testing.stale_socket("fin"), ValueError, "'fin' is no stale state: it takes eo"),
        (lambda server: server.perform(Reset()), TypeError, IDLE_STEP),
        (lambda server: server.perform(testing.ResetAfter), TypeError, IDLE_STEP),
        (lambda server: server.perform(LATE), ValueError, r"0 is over, ResetAfter\(\) cannot be"),
        (lambda server: server.perform(LATE, 7), ValueError, r"no connection 7 .*: 1 clients"),
        (lambda server: server.add(CloseAfter(0)), TypeError, FAULT),
        (lambda server: server.add(None), TypeError, FAULT),
        (lambda server: server.add(testing.Blackout), TypeError, FAULT + " the class Blackout: wr"),
    ],
)
def test_what_is_made_or_asked_of_a_server(make, error, words):
    """By whose only client has left."""
    with FaultServer() as server:
        server.connect().close()
        server.wait_ended(0)
        with pytest.raises(error, match=words):
            make(server)


def test_a_server_that_is_closed():
    with FaultServer() as server:
        latency = server.add(Latency(1))
    latency.lift()
    with pytest.raises(ValueError, match=r"the server is closed, Latency.* cannot be added"):
        server.add(Latency(1))


@pytest.mark.parametrize("chosen", [None, 200, Respond], ids=str)
def test_what_a_function_returns(chosen):
    with pytest.raises(TypeError, match="a script function returns a step or a list, got"):
        with connected(lambda request: chosen) as (server, client):
            client.send()
            server.wait_ended(0)
