"""Refusals: which answers may be due to a second connection, and are waited out."""

import functools

import pytest

from delayed_answers import sent_twice
from pools import DEFAULTS, counters, get, in_stock, pooled_connection, serving, shim
from replay_tools import asked, outcome, reused, side_by_side
from stalepool import runtime
from stalepool.connection import replay, request_rules
from stalepool.connection.state import Request, find
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


KEYED = b"POST / HTTP/1.1\r\nIdempotency-Key: 1\r\n\r\n"
ANY_4XX = {*range(400, 500)}


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b"GET / HTTP/1.1", {400, 401, 409}),
        (KEYED, {400, 401, 409}),
        (b"PUT / HTTP/1.1", ANY_4XX),
        (b"DELETE / HTTP/1.1", ANY_4XX - {404, 410}),
    ],
    ids=["safe", "with a key", "PUT", "DELETE"],
)
def test_which_answers_to_a_replay_may_be_due_to_the_first_sending(head, wanted):
    with shim(), serving() as (_, pool):
        assert get(pool) == 200
        conn = pooled_connection(pool)
        request = Request(find(conn.sock), conn, head, runtime.current)
    assert found_by(functools.partial(request_rules.may_be_due_to_the_first, request)) == wanted


#: how a connection ends, once the server has acted on the request
ENDS = {"FIN": ProcessThenClose(), "RST": ProcessThenReset()}
#: the answer to the second sending, and whether the caller gets it
SECOND = {
    "a version has changed": ("PUT", 409, False),
    "a nonce was used": ("GET", 401, False),
    "not found": ("GET", 404, True),
    "deleted": ("DELETE", 404, True),
    "done": ("PUT", 204, True),
    "failed": ("PUT", 500, True),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("method", "status", "is_told"), SECOND.values(), ids=SECOND)
def test_an_answer_that_may_be_due_to_the_first_sending(method, status, is_told, end):
    """The caller gets the first error, as without us: in OpenStack's placement a 409 in its place
    has the caller read the new state, and do once more what was done."""

    def seen():
        with reused(ENDS[end], Respond(status)) as (server, pool):
            found = outcome(pool, method)
            return found, asked(server), counters(server).get("replays")

    stocks_error = in_stock(seen)[0]
    with shim(**DEFAULTS):
        wanted = (status, 2, {"ok": 1}) if is_told else (stocks_error, 2, {"failed": 1})
        assert seen() == wanted


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
