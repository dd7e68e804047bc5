"""Refusals: which answers may be due to a second connection, and are waited out."""

import pytest

from delayed_answers import sent_twice
from pools import DEFAULTS, counters, get, in_stock, shim
from replay_tools import asked, outcome, reset_after_checkout, reused, side_by_side
from stalepool.connection import replay, request_rules
from stalepool_testing import (
    HalfStatusLine,
    ProcessThenClose,
    ProcessThenReset,
    Respond,
    kernel,
)

#: on a second connection; 502 is its gateway's
REFUSALS = [400, 401, 403, 408, 409, 413, 421, 429, 502, 503]
#: not of the request in any case: an interim answer, a failure
NOT_OF_THE_REQUEST = {*range(100, 200), *range(500, 600)}


def found_by(judge):
    answers = {status: b"HTTP/1.1 %d " % status for status in range(100, 600)}
    return {status for status, first in answers.items() if judge(first)}


def test_which_answers_may_refuse_a_connection():
    assert found_by(request_rules.may_refuse_the_old) == {409, 429, 503}
    assert found_by(request_rules.may_refuse_the_fresh) == {*REFUSALS, *NOT_OF_THE_REQUEST}


def test_which_answers_to_a_replay_are_errors():
    assert found_by(request_rules.is_an_error) == {*range(400, 600)}


#: how a connection ends, once the server has acted on the request
ENDS = {"FIN": ProcessThenClose(), "RST": ProcessThenReset()}
#: the answer to the second sending
SECOND = {
    "a version has changed": ("PUT", 409),
    "a nonce was used": ("GET", 401),
    "there is no route yet": ("DELETE", 404),
    "the backend is not up yet": ("GET", 502),
    "done": ("PUT", 204),
    "not modified": ("GET", 304),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("method", "status"), SECOND.values(), ids=SECOND)
def test_an_error_in_answer_to_a_replay(method, status, end):
    """The caller gets the first error, as without us. In place of it a 409 of OpenStack's placement
    has the caller read the new state, and do once more what was done; and keystoneauth1 retries
    what fails to connect, and not a 502."""

    def seen():
        with reused(ENDS[end], Respond(status)) as (server, pool):
            found = outcome(pool, method)
            return found, asked(server), counters(server).get("replays")

    stocks_error = in_stock(seen)[0]
    with shim(**DEFAULTS):
        wanted = (status, 2, {"ok": 1}) if status < 400 else (stocks_error, 2, {"failed": 1})
        assert seen() == wanted


def test_an_error_in_answer_to_a_replay_after_a_failed_send():
    """Stock does not raise what the send raised, but what reading the answer raises."""
    settings = {**DEFAULTS, "presend_check": False}
    with shim(**settings), reused(default=Respond(503)) as (server, pool):
        reset_after_checkout(server, pool)
        assert outcome(pool, "PUT", body=b"x") == ["ProtocolError", "ConnectionResetError"]
        assert (asked(server), counters(server)["replays"]) == (1, {"failed": 1})


@pytest.mark.parametrize(
    "step",
    [*map(Respond, REFUSALS), HalfStatusLine()],
    ids=[*map(str, REFUSALS), "half a status line"],
)
def test_a_refusal_of_the_fresh_one_while_the_old_one_may_be_answered(step):
    """The old one lives, so this is one connection too many."""
    with sent_twice(lambda *_: step) as (server, pool, later):

        def answer_the_first():
            server.wait_ended(1)
            kernel.wait_until(lambda: not replay._beside, "a request without a second socket")
            later.told.set()

        assert side_by_side([lambda: get(pool, "/wanted"), answer_the_first])[0] == 200
