"""The counters: bounded, lossless between threads, plain data, and what can be read off them."""

import os
import sys
import threading
import time
from functools import partial

import pytest

import stalepool
from delayed_answers import kernel_says
from pools import DEFAULTS, counters, end_while_idle, get, serving, shim, stock
from replay_tools import (
    after_checkout,
    have,
    prime,
    reused,
    send,
    side_by_side,
    silent_after_checkout,
)
from stalepool import fallback, stats, status
from stalepool.sockets.verdict import Verdict
from stalepool.stats import Knowledge
from stalepool_testing import Close, CloseAfter, ResetAfter, SurplusWithAnswer
from worlds import in_a_fork


@pytest.fixture(autouse=True)
def from_zero():
    stats._origins.clear()
    yield
    stats._origins.clear()


def test_three_thousand_origins():
    names = ["https://host-%d.example.org:8774" % number for number in range(3_000)]
    for name in (*names, names[0]):
        stats.origin(name).count("verdicts", "closed")
    snapshot = stats.snapshot()
    closed = {name: seen["verdicts"]["closed"] for name, seen in snapshot["origins"].items()}
    own = dict.fromkeys(names[: stats.MAX_ORIGINS], 1)
    assert closed == {**own, names[0]: 2, stats.OTHERS: 3_000 - stats.MAX_ORIGINS}
    assert snapshot["totals"]["verdicts"] == {"closed": 3_001}  # none is lost, only its name


@pytest.mark.parametrize("age_s", [-1.0, 0.0, 0.5, 2.0, 60.0, 350.0, 4e6])
def test_the_bucket_holds_the_age(age_s):
    seen = stats.origin("http://a:1")
    seen.count_death(age_s)
    ((edge, count),) = seen.as_dict()["died_idle_s"].items()
    assert count == 1 and edge > 0
    if age_s > 0:  # what cannot be falls into the first bucket
        assert age_s / 1.01 <= edge <= age_s * 1.01 * stats.BUCKET_RATIO  # of three digits


def test_the_age_at_death():
    """It is that of the FIN, however late that is found. Of a reset the kernel tells no time."""

    def edge(step, tls=None):
        with reused(tls=tls) as (server, pool):
            end_while_idle(server, pool, step)
            time.sleep(0.7)
            assert get(pool) == 200
            (age_s,) = counters(server)["died_idle_s"]
            return age_s

    fin, unannounced = CloseAfter(0.5), CloseAfter(0.5, close_notify=False)
    ends = (fin,), (fin, "TLSv1.3"), (unannounced, "TLSv1.3"), (ResetAfter(0),)
    with shim():
        *of_a_fin, of_a_reset = side_by_side([partial(edge, *end) for end in ends])
    # the bucket of 0.5 s, or the next one on a machine that is busy
    assert all(0.5 <= age_s < 0.5 * stats.BUCKET_RATIO**3 for age_s in of_a_fin)
    assert of_a_reset >= 0.7


def test_nothing_is_learnt_of_origins_that_share_an_entry():
    for number in range(stats.MAX_ORIGINS + 1):
        others = stats.origin("http://a:%d" % number)
    untouched, knowledge = others.knowledge.as_dict(), others.knowledge
    others.knowledge.has_answered = True
    others.knowledge.window_until = time.monotonic() + 1.0
    others.knowledge.note_probe_answered()
    assert others.knowledge.as_dict() == untouched
    assert untouched["keepalive_probes"] == "swallowed"  # so silence is no evidence
    assert knowledge.moves_stopped_for_s and others.knowledge.window_until is None
    assert stats.snapshot()["origins"][stats.OTHERS]["knowledge"] == Knowledge().as_dict()


def test_threads_lose_nothing(request):
    """Nothing of origins that they make at the same time, and nothing of one counter."""
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    ready, counter = threading.Barrier(8), stats.Counter()

    def hammer():
        ready.wait(10)
        for number in range(300):
            seen = stats.origin("http://a:%d" % number)
            seen.count("verdicts", "reset")
            seen.count_death(1.0)
            if number % 50 == 0:
                stats.snapshot()  # while others add
        for _ in range(5000):
            counter.tick()

    sys.setswitchinterval(1e-6)  # as often as can be
    side_by_side([hammer] * 8)
    totals = stats.snapshot()["totals"]
    assert totals["verdicts"] == {"reset": 8 * 300}
    assert sum(totals["died_idle_s"].values()) == 8 * 300
    assert counter.value == 8 * 5000


def look_after_a_fork():
    """The snapshots of a process, of its child, and of that after a fallback of its own."""

    def look():
        return dict(stalepool.snapshot(), own_pid=os.getpid(), due_at=status.due_at)

    stats.origin("http://a:1").armed.tick()
    stats.origin("http://a:1").knowledge.note_answered()
    fallback.fall_back("check_failed", "before")
    again = "check_failed", "again: said in this process's log too"
    child, _, later = in_a_fork(lambda: [look(), fallback.fall_back(*again), look()])
    return look(), child, later


def test_a_child_starts_from_zero(call_python):
    parent, child, later = call_python(look_after_a_fork, complains=True)
    assert parent["pid"] == parent["own_pid"] != child["pid"] == child["own_pid"]
    assert [seen["totals"]["keepalive_armed"] for seen in (parent, child)] == [1, 0]
    known = [seen["origins"]["http://a:1"]["knowledge"] for seen in (parent, child)]
    assert [each["has_answered"] for each in known] == [True, False]  # this process
    said = [seen["fallbacks"] for seen in (parent, child, later)]
    assert said == [{"check_failed": 1}, {}, {"check_failed": 1}]
    assert (child["installed"], child["mode"]) == (True, "active")
    assert child["since"] > parent["since"] and child["due_at"] == 0.0


def test_a_connection_has_gone_for_one_of_a_closed_set():
    """Each has words of its own; what was kept is not among them."""
    reasons = {verdict.value for verdict in Verdict} - {"alive", "unknown", "no_socket"}
    in_request = {"failed_in_request": 2, "silent_in_request": 1}
    counted = [("verdicts", verdict.value) for verdict in Verdict]
    counted += [("moved", name) for name in ("presend_check", "probe_unanswered", "failed")]
    counted += [("gone", name) for name, times in in_request.items() for _ in range(times)]
    counted += [("replays", "ok")] * 2 + [("reconnects", "ok"), ("replays_refused", "method")]
    origin = stats.Origin("")
    for group, name in counted:
        origin.count(group, name)
    seen = origin.as_dict()
    assert set(seen["gone"]) == reasons | {"presend_check", "probe_unanswered", *in_request}
    assert {**seen["gone"], **in_request} == seen["gone"]
    assert seen["saved"] == {"replayed": 2, "kept_off": 0, "reconnected": 1}
    assert (seen["checkouts"], seen["discards"]) == (len(Verdict), len(reasons))
    assert seen["replays_refused"] == {"method": 1}


# The faults that a single request meets are in connection/test_replay_matrix.


@pytest.mark.usefixtures("small_reads")
def test_an_answer_of_another_request_over_tls():
    """It lies in the TLS layer, and urllib3 alone hands it to whoever comes next."""
    for who, second, saved in (stock(), 408, {}), (shim(**DEFAULTS), 200, {"kept_off": 1}):
        with who, serving([SurplusWithAnswer()], tls="TLSv1.3") as (server, pool):
            assert [get(pool), get(pool)] == [200, second]
            assert saved.items() <= counters(server).get("saved", {}).items()


@pytest.mark.parametrize("mode, saved", [("active", [1, 2, 0]), ("audit", [0, 0, 0])])
def test_what_is_saved(mode, saved):
    with shim(**DEFAULTS, mode=mode), reused(Close()) as (server, pool):
        assert (send(server, pool, "GET").error is None) is any(saved)
        prime(pool)
        after_checkout(pool, have(server, CloseAfter()))
        assert (send(server, pool, "GET").error is None) is any(saved)
        prime(pool)
        silent_after_checkout(pool)
        with kernel_says(probes=2):
            assert get(pool) == 200
        assert list(counters(server)["saved"].values()) == saved
