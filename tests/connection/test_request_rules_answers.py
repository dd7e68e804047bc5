"""Refusals: which answers may be due to a second connection, and are waited out."""

import pytest

from delayed_answers import sent_twice
from pools import get
from replay_tools import side_by_side
from stalepool.connection import replay, request_rules
from stalepool_testing import HalfStatusLine, Respond, kernel

#: on a second connection: of the server, of a gateway; and an interim one, which may become any
REFUSALS = [404, 429, 502, 103]


def test_which_answers_may_refuse_a_connection():
    of_bytes = {request_rules.status_of(b"HTTP/1.1 %d " % status) for status in range(100, 600)}
    assert of_bytes == {*range(100, 600)}
    assert sorted(request_rules.REFUSE_ONE_OF_TWO) == [409, 429, 503]
    assert set(filter(request_rules.is_a_success, of_bytes)) == {*range(200, 300), 304}


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
