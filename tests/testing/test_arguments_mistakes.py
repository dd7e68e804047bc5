"""Mistakes in a script, told where they are made, by what is accepted."""

from __future__ import annotations

from typing import Any, Callable

import pytest
import urllib3

from stalepool_testing import (
    Close,
    CloseAfter,
    ConnectProxy,
    FaultServer,
    Reset,
    ResetAfter,
    Respond,
)

LIST = (
    r"script takes a list of steps such as \[Respond\(200\)\], or a function of the request, got "
)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: FaultServer(default=Reset), "default takes .* class Reset: write Re"),
        (lambda: FaultServer(default=CloseAfter(0)), "default takes .* got CloseAft"),
        (lambda: FaultServer(Respond(200)), LIST + "Respond"),
        (
            lambda: FaultServer(Respond(200), Reset()),
            r"script takes a list of steps: write \[Respond\(\), Reset\(\)\]",
        ),
        (lambda: FaultServer(Respond), LIST + "the class Respond: write "),
        (lambda: FaultServer("Respond"), LIST + "'Respond'"),
        (lambda: FaultServer(200), LIST + "200"),
        (lambda: FaultServer(None), LIST + "None"),
        (lambda: FaultServer([Respond]), "made of steps .* got the class Respond: write Respond"),
        (lambda: FaultServer([200]), "made of steps .* got 200"),
        (lambda: FaultServer(tls=True), r"tls takes TLS\(\) or None, got True"),
        (lambda: ConnectProxy(tls="yes"), r"tls takes TLS\(\) or None, got 'yes'"),
    ],
)
def test_a_type(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


def test_a_place() -> None:
    with pytest.raises(ValueError, match=r"Close\(\) leaves no connection for ResetAfter\(\)"):
        FaultServer([Close(), ResetAfter(0)])


def test_perform() -> None:
    with FaultServer() as server:
        with pytest.raises(ValueError, match=r"no connection -1 .* ResetAfter.*: 0 clients"):
            server.perform(ResetAfter(0))
        for step in Reset(), ResetAfter:
            with pytest.raises(TypeError, match=r"takes an idle step such as ResetAfter\(0\), got"):
                server.perform(step)
        with urllib3.PoolManager() as pool:
            pool.request("GET", server.url)
            server.perform(CloseAfter(0))
            with pytest.raises(ValueError, match=r"connection 0 is over, CloseAfter\(\) cannot be"):
                server.perform(CloseAfter(0))
            with pytest.raises(ValueError, match="there is no connection 7"):
                server.perform(CloseAfter(0), connection=7)


@pytest.mark.parametrize("chosen", [None, 200, Respond], ids=str)
def test_what_a_function_returns(chosen: Any) -> None:
    server = FaultServer(lambda request: chosen)
    with urllib3.PoolManager(retries=False) as pool:
        with pytest.raises(urllib3.exceptions.HTTPError):
            pool.request("GET", server.url)
    with pytest.raises(TypeError, match="a script function returns a step or a list, got"):
        server.close()
