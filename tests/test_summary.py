"""The sentence that says what the shim has done, in the log and in words."""

import logging
import re
import time

import pytest

from pools import get, serving, shim
from service_process import output_of
from stalepool import status, summary
from stalepool_testing import Close, Respond


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
        twice = "for _ in range(2): pool.request('GET', '/')"
        out, _ = output_of(twice, server, STALEPOOL_SUMMARY_S="3600")
    assert "saved 1 request in" in out[-1]


def test_durations_and_settings_as_their_variables_have_them():
    said = {0: "0 s", 119: "119 s", 120: "2 min", 7199: "120 min", 10800: "3 h", 2e5: "2 d"}
    assert {seconds: summary.duration(seconds) for seconds in said} == said
    assert [summary.shown(value) for value in (None, False, True, 5)] == ["off", "off", "on", "5"]


def test_each_of_these_is_an_event():
    groups = ("saved", "moved", "replays", "replays_refused", "reconnects", "gone")
    nothing = {"discards": 0, **{group: {} for group in groups}}
    assert not summary.has_events({"totals": nothing, "fallbacks": {}})
    assert summary.has_events({"totals": nothing, "fallbacks": {"one": 1}})
    for one in [{"discards": 1}, *({group: {"one": 1}} for group in groups)]:
        assert summary.has_events({"totals": {**nothing, **one}, "fallbacks": {}}), one


SENTENCES = {
    "active": "saved 1,111 requests in 5 s: 1,000 sent once more, 100 kept off a connection that "
    "only looked alive, 11 reconnected; discarded 1 connection at checkout; 2 fallbacks",
    "audit": "audit for 5 s: 7 requests failed on a connection that ended, active would have sent "
    "3 of them once more; it would have discarded 1 connection; 2 fallbacks",
}


@pytest.mark.parametrize("mode", SENTENCES)
def test_the_sentence(mode):
    saved = {"replayed": 1000, "kept_off": 100, "reconnected": 11}
    refused = {"method": 3, "body": 1}
    totals = {"saved": saved, "replays": {"would": 3}, "replays_refused": refused, "discards": 1}
    seen = {"totals": totals, "fallbacks": {"one": 2}}
    assert summary.sentence(seen, 5, is_audit=mode == "audit") == SENTENCES[mode]
