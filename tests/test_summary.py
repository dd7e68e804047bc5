"""The sentence that says what the shim has done, in the log and in words."""

from __future__ import annotations

import logging
import re
import time

import pytest
import urllib3

import stalepool
from logs import listening, output_of
from pools import get, serving, shim
from stalepool import status, summary
from stalepool_testing import Close, ResetAfter, Respond


@pytest.fixture
def listen():
    with listening() as listen:
        yield listen


def test_a_summary_where_something_happened(listen):
    with shim(summary_s=60, replay="idempotent"), serving([Respond(200), Close()]) as (_, pool):
        heard = listen(level=logging.INFO)
        get(pool)
        assert [line for line in heard.lines if "saved" in line] == []
        get(pool)
        for _ in range(3):
            status._summarized_at = time.monotonic() - 60
            status.due_at = 0.0
            get(pool)
        (record,) = [record for record in heard.records if "saved" in record.getMessage()]
    said = r"process \d+ saved 1 request in \d+ \w+: 1 sent once more, .*; 0 fallbacks$"
    assert re.match(said, record.getMessage())
    assert (record.name, record.levelno) == ("stalepool.status", logging.INFO)


def test_a_summary_at_exit():
    with serving([Respond(200), Close()]) as (server, _):
        out, _ = output_of(
            "for _ in range(2): pool.request('GET', '/')", server, STALEPOOL_SUMMARY_S="3600"
        )
    assert "saved 1 request in" in out[-1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (10800, "3 h"), (2e5, "2 d")],
)
def test_durations(seconds: float, words: str) -> None:
    assert summary.duration(seconds) == words


def test_a_setting_is_shown_as_its_variable_has_it() -> None:
    assert [summary.shown(value) for value in (None, False, True, 5)] == ["off", "off", "on", "5"]


def test_a_reset_connection_is_no_request_saved() -> None:
    with shim(), serving([Respond(200), ResetAfter(0)]) as (server, pool):
        get(pool)
        server.wait_idle_step()
        get(pool)
        seen = stalepool.snapshot()
    assert summary.sentence(seen, 5, False) == (
        "saved 0 requests in 5 s: 0 sent once more, 0 kept off a connection that only looked "
        "alive, 0 reconnected; discarded 1 connection at checkout; 0 fallbacks"
    )


EVENTS = ["saved", "moved", "replays", "replays_refused", "reconnects", "gone"]


@pytest.mark.parametrize("group", EVENTS)
def test_each_of_these_is_an_event(group):
    seen = {"totals": {"discards": 0, **{each: {} for each in EVENTS}}, "fallbacks": {}}
    assert not summary.has_events(seen)
    seen["totals"][group] = {"one": 1}
    assert summary.has_events(seen)


def test_in_audit_mode_it_says_what_active_would_have_done():
    with shim(mode="audit", replay="idempotent"):
        with serving([Respond(200), Close()]) as (_, pool):
            get(pool)
            with pytest.raises(urllib3.exceptions.ProtocolError):
                get(pool)
            seen = stalepool.snapshot()
    assert summary.sentence(seen, 5, True) == (
        "audit for 5 s: 1 request failed on a connection that ended, active would have sent 1 of "
        "them once more; it would have discarded 0 connections; 0 fallbacks"
    )
