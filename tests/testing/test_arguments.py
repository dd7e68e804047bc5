"""Wrong arguments, told where they are written, by what is accepted."""

import math
import re
import socket
from dataclasses import MISSING, fields, is_dataclass

import pytest
import urllib3

import stalepool_testing as testing
from raw_client import connected
from stalepool_testing import BlackHole, CloseAfter, FaultServer, Latency, Reset, Respond, into_pool
from stalepool_testing.arguments import Checked

#: an argument of each kind -> what it takes; values of another type, and such as are out of range
KINDS = {
    (Respond, "status"): ("a status from 100 to 999", [True, "200"], [99, 1000, -1]),
    (Respond, "body"): ("bytes, or a function of the request", ["text", None, 7], []),
    (Respond, "headers"): ("a mapping", ["text"], []),
    (CloseAfter, "seconds"): ("seconds from 0", ["1", None, False], [-0.1, math.nan, math.inf]),
    (BlackHole, "seconds"): ("seconds from 0, or None", ["1"], [-1]),
    (testing.Surplus, "body"): ("bytes", [testing.echo], []),
    (testing.Bandwidth, "bytes_per_s"): ("a whole number from 1", [1.5], [0]),
    (testing.ResetAtNextByte, "direction"): ("'up' or 'down'", [1], ["left"]),
}


@pytest.mark.parametrize("step, name", KINDS)
def test_what_an_argument_takes(step, name):
    accepts, *wrong = KINDS[step, name]
    for error, values in zip((TypeError, ValueError), wrong):
        for value in values:
            with pytest.raises(error) as refused:
                step(**{name: value})
            assert str(refused.value) == f"{step.__name__}({name}={value!r}): it takes {accepts}"


#: every step, and every fault
STEPS = [x for x in vars(testing).values() if is_dataclass(x) and issubclass(x, Checked)]


@pytest.mark.parametrize("step", STEPS)
def test_every_argument_is_checked(step):
    """But for switches, which take what is true and what is false."""
    needed = {x.name: 1 for x in fields(step) if MISSING is x.default is x.default_factory}
    for each in fields(step):
        if each.type != "bool":
            with pytest.raises(TypeError, match=rf"\({each.name}=<object .*: it takes "):
                step(**{**needed, each.name: object()})


LIST = r"script takes a list of steps such as .*, or a function of the request, got "
IDLE_STEP = r"takes an idle step such as ResetAfter\(0\), got"
FAULT = r"add\(\) takes a fault such as Latency\(0.2\), got"
FAMILY = "family takes AF_INET, AF_INET6 or AF_UNIX, "
LATE, UNIX = testing.ResetAfter(0), socket.AF_UNIX
POOL = urllib3.HTTPConnectionPool("127.0.0.1")


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
        (lambda _: FaultServer(host="192.0.2.1"), OSError, r"'192.0.2.1', 0\) in AF_INET: "),
        (lambda _: FaultServer(host="::1"), OSError, r"cannot bind to \('::1', 0\) in AF_INET: "),
        (lambda _: FaultServer(family="ipv6"), ValueError, FAMILY + "got 'ipv6'$"),
        (lambda _: testing.eof(family=99), ValueError, FAMILY + "got 99$"),
        (lambda _: FaultServer(receive_buffer="big"), TypeError, "of bytes or None, got 'big'"),
        (lambda _: FaultServer([Latency(1)]), TypeError, "which belongs in server.add"),
        (lambda _: into_pool(urllib3.PoolManager(), None), TypeError, "PoolManager returns its"),
        (lambda _: into_pool(POOL, None), TypeError, "sock takes a socket, .* got None"),
        (lambda server: server.close() or server.listen(), ValueError, "closed, it cannot listen"),
        (lambda server: server.perform(Latency(1)), TypeError, "which belongs in server.add"),
        (lambda _: testing.TLS("SSLv3"), ValueError, r"TLSv1\.2, TLSv1\.3.*'SSLv3'"),
        (lambda _: testing.stale_socket("fin"), ValueError, "'fin' is no stale state: it takes eo"),
        (lambda server: server.perform(Reset()), TypeError, IDLE_STEP),
        (lambda server: server.perform(testing.ResetAfter), TypeError, IDLE_STEP),
        (lambda server: server.perform(LATE), ValueError, r"0 is over, ResetAfter\(\) cannot be"),
        (lambda server: server.perform(LATE, 7), ValueError, r"no connection 7 .*: 1 clients"),
        (lambda server: server.add(CloseAfter(0)), TypeError, FAULT + ".* belongs in the script"),
        (lambda server: server.add(None), TypeError, FAULT),
        (lambda server: server.close() or server.add(Latency(1)), ValueError, "closed, Latency"),
        (lambda server: server.add(testing.Blackout), TypeError, FAULT + " the class Blackout: wr"),
    ],
)
def test_what_is_made_or_asked_of_a_server(make, error, words):
    """By whose only client has left."""
    with FaultServer() as server:
        server.connect().close()
        server.wait_ended(0)
        with pytest.raises(Exception) as raised:  # not by match=: an Unavailable would skip it
            make(server)
    assert isinstance(raised.value, error) and re.search(words, str(raised.value))


class Unfinished(testing.AnswerStep):
    """Of an author who has only begun."""


@pytest.mark.parametrize(
    "chosen, error, words",
    [
        (None, TypeError, "a script function returns a step or a list, got None"),
        (200, TypeError, "a script function returns a step or a list, got 200"),
        (Respond, TypeError, "a script function returns a step or a list, got the class"),
        (Unfinished(), NotImplementedError, r"Unfinished has no method answer\(exchange\)"),
        (Respond(body=lambda request: "text"), TypeError, "has to return bytes, got 'text'"),
    ],
)
def test_what_a_function_returns(chosen, error, words):
    with pytest.raises(error, match=words):
        with connected(lambda request: chosen) as (server, client):
            client.send()
            server.wait_ended(0)
