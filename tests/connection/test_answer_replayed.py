"""A replay is answered: the caller gets that answer, or the first error if it is an error."""

from dataclasses import dataclass

import pytest

from pools import DEFAULTS, counters, in_stock, shim
from replay_tools import asked, outcome, reset_after_checkout, reused
from stalepool_testing import AnswerStep, ProcessThenClose, ProcessThenReset, Respond


@dataclass(frozen=True)
class Conflict(AnswerStep):
    """A 409 whose status arrives in two pieces."""

    def answer(self, exchange):
        exchange.process()
        exchange.send(b"HTTP/1.1 4")
        exchange.channel.pause(0.05)
        exchange.send(b"09 Conflict\r\nContent-Length: 0\r\n\r\n")


#: how a connection ends, once the server has acted on the request
ENDS = {"FIN": ProcessThenClose(), "RST": ProcessThenReset()}
#: the answer to the second sending, and its status if the caller gets it
SECOND = {
    "a version has changed": ("PUT", Respond(409), None),
    "the same, in two pieces": ("PUT", Conflict(), None),
    "a nonce was used": ("GET", Respond(401), None),
    "there is no route yet": ("DELETE", Respond(404), None),
    "the backend is not up yet": ("GET", Respond(502), None),
    "a page says so": ("PUT", Respond(302), None),
    "an interim answer": ("GET", Respond(103), None),
    "done": ("PUT", Respond(204), 204),
    "not modified": ("GET", Respond(304), 304),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("method", "step", "status"), SECOND.values(), ids=SECOND)
def test_the_answer_to_a_replay(method, step, status, end):
    """In place of the first error a 409 of OpenStack's placement has the caller read the new state,
    and do once more what was done; and keystoneauth1 retries what fails to connect, but no 502."""

    def seen():
        with reused(ENDS[end], step) as (server, pool):
            found = outcome(pool, method)
            return found, asked(server), counters(server).get("replays")

    stocks_error = in_stock(seen)[0]
    with shim(**DEFAULTS):
        assert seen() == ((status, 2, {"ok": 1}) if status else (stocks_error, 2, {"failed": 1}))


def test_an_error_in_answer_to_a_replay_after_a_failed_send():
    """Stock does not raise what the send raised, but what reading the answer raises."""
    settings = {**DEFAULTS, "presend_check": False}
    with shim(**settings), reused(default=Respond(503)) as (server, pool):
        reset_after_checkout(server, pool)
        assert outcome(pool, "PUT", body=b"x") == ["ProtocolError", "ConnectionResetError"]
        assert (asked(server), counters(server)["replays"]) == (1, {"failed": 1})
