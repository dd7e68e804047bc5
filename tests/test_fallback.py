"""Falls back to urllib3: how each reason is counted, and what a broken part does to a request."""

import logging
import re
from pathlib import Path

import pytest

import stalepool
from breaks import breaks
from pools import EVERYTHING, end_while_idle, get, pooled_connection, serving, shim
from stalepool import fallback


def test_the_reasons_are_those_that_the_package_counts():
    counted = re.compile(r'(?:fall_back|guarded)\(\s*"(\w+)"')
    texts = [path.read_text("utf-8") for path in Path(fallback.__file__).parent.rglob("*.py")]
    assert {reason for text in texts for reason in counted.findall(text)} == set(fallback.REASONS)


@pytest.mark.parametrize("reason", fallback.REASONS)
def test_each_reason_is_counted_and_said_once(reason, caplog):
    @fallback.guarded(reason, default="left to urllib3")
    def guarded(call):
        return call()

    fallback.forget()
    assert [guarded(lambda: 1 / 0), guarded(lambda: 1 / 0)] == ["left to urllib3"] * 2
    assert guarded(lambda: 7) == 7
    assert fallback.counts() == {reason: 2}
    fallback.forget()
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelno == logging.WARNING
    assert reason in said and fallback.REASONS[reason] in said and "division" in said


#: part -> how often the check of a reused connection counts it
PARTS = {
    **dict.fromkeys(("liveness", "poller", "TCP_INFO", "layers", "HTTP version"), 1),
    **dict.fromkeys(("full check", "report of the check"), 1),
    **dict.fromkeys(("counters", "keepalive", "time limit", "reason to move"), 0),
    **dict.fromkeys(("record of a request", "answer's note"), 0),
}


@pytest.mark.each_value
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("peer", ["open", "closed"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_broken_part_leaves_it_to_urllib3(part, peer, method):
    """On a connection that is reused, and on one that is opened."""
    settings = {} if PARTS[part] else EVERYTHING  # nothing makes up for a check
    with shim(falls_back=True, **settings), serving() as (server, pool):
        assert get(pool) == 200
        if peer == "closed":
            end_while_idle(server, pool)
        with breaks(part):
            assert pool.request(method, "/", body=b"x").status == 200
            assert stalepool.snapshot()["fallbacks"].get("check_failed", 0) == PARTS[part]
            pooled_connection(pool).close()
            assert [pool.request(method, "/", body=b"x").status for _ in range(2)] == [200] * 2
        assert get(pool) == 200
        assert len(server.journal.connections) == (3 if peer == "closed" else 2)
        assert len(server.journal) == 5
