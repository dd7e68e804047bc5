"""The suite: each case with GET and with POST."""

from __future__ import annotations

import pytest

from stalepool_testing import TLS, FaultServer, Respond, Unavailable
from stalepool_testing.conformance.cases import CASES, Case
from stalepool_testing.conformance.clients import Factory
from stalepool_testing.conformance.plugin import Note

FIRST, SECOND = 200, 202


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", CASES)
def test_client(name: str, method: str, make_client: Factory, note: Note) -> None:
    """GET must be answered; POST, too, if the fault could be noticed; POST never twice."""
    case, tls = CASES[name], TLS()
    script = [Respond(FIRST), *([case.meets] if case.meets else [])]
    server = FaultServer(script, default=Respond(SECOND), tls=tls if case.over_tls else None)
    with server:
        client = make_client(tls.ca_path)
        try:
            assert client.request("GET", server.url, None) == FIRST
            if case.idle:
                _perform(server, case)
            try:
                status = client.request(method, server.url, b"x" if method == "POST" else None)
            except Exception as error:
                said = type(error).__name__
            else:
                said = "ok" if status == SECOND else f"took {status} for its answer"
        finally:
            client.close()
        times = server.journal.count(method="POST")
        if times > 1:
            said = f"sent {times} times"
        note(name, method, said)
        must_fail = method == "POST" and case.meets is not None
        assert said == "ok" or (must_fail and times == 1 and not said.startswith("took")), said


def _perform(server: FaultServer, case: Case) -> None:
    assert case.idle is not None
    try:
        server.perform(case.idle)
    except Unavailable as reason:
        pytest.skip(str(reason))
