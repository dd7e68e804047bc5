"""A soak: what holds for one request holds for twenty thousand of them, all at once.

The server lives in the test's process; its client, a hundred green threads, in one of its own.
Which fault a request meets is drawn from its id.
"""

import gc
import json
import os
import random
from collections import Counter

import pytest
import urllib3

import stalepool
import stalepool_testing as testing
from replay_tools import BODIES, ECHO, IDEMPOTENT, METHODS, NON_IDEMPOTENT
from stalepool_testing import TLS, FaultServer, HalfStatusLine, Respond, echo

GREEN_THREADS = 100
CONNECTIONS = 60  # fewer than threads: connections go from hand to hand
FAULTS_IN_A_HUNDRED = 12
TLS_IN_A_HUNDRED = 10
LONGEST_S = 1800

#: what may happen to any request on a reused connection, or behind its answer
FAULTS = [
    *(testing.Close(), testing.Reset(), testing.ProcessThenClose(), testing.ProcessThenReset()),
    *(testing.CloseAfter(), testing.ResetAfter(), testing.FinWithin(0.005)),
    *(testing.HalfCloseThenProcess(), testing.LingeringClose(linger_s=0.2)),
    testing.SurplusWithAnswer(408, body=echo),
    Respond(200, echo, delay_s=0.02),
    Respond(200, echo, {"Keep-Alive": "timeout=1"}),
    Respond(503, echo),
]
#: errors as ever, whatever the method: only where an error is allowed
FATAL_FAULTS = [testing.HalfAnswer(), HalfStatusLine(), HalfStatusLine(reset=True)]


class PickFault(testing.AnswerStep):
    """A fault at random, but for a connection's first request; the journal has what was picked."""

    def __init__(self):
        self._have_answered = set()  # connections, by their numbers

    def answer(self, exchange):
        channel, step = exchange.channel, ECHO
        chance = random.Random("seed" + exchange.request.request_id)
        if channel.number in self._have_answered and chance.random() < FAULTS_IN_A_HUNDRED / 100:
            is_idempotent = exchange.request.method in IDEMPOTENT
            step = chance.choice(FAULTS if is_idempotent else FAULTS + FATAL_FAULTS)
        self._have_answered.add(channel.number)
        exchange.entry.step = step
        if not isinstance(step, testing.IdleStep):
            step.answer(exchange)
            return
        ECHO.answer(exchange)
        if step.idle(channel) and channel.is_open:
            step.afterwards(channel)


# -- the client, in a process that is green --------------------------------------------------------


def run_client(requests, ca_path, *urls):
    """``lost``: idempotent requests without an answer. ``wrong``: answers to another request.
    ``failed``: ids of the others that ended in an error. ``left_over``: descriptors, green threads
    and the hub's listeners that were not there before.
    """
    import eventlet

    found = {"lost": [], "wrong": [], "failed": []}

    def one_request(pool, method, request_id):
        body, headers = BODIES.get(method), {"X-Request-Id": request_id}
        try:
            answer = pool.request(method, "/" + request_id, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            if method in IDEMPOTENT:
                found["lost"].append([method, request_id, repr(error)])
            else:
                found["failed"].append(request_id)
            return
        said = json.loads(answer.data)
        seen = said["method"], said["request_id"], said["body"].encode()
        if answer.status not in (200, 503) or seen != (method, request_id, body or b""):
            found["wrong"].append([method, request_id, answer.status, said])

    def green_thread(number):
        chance = random.Random("seed-%d" % number)
        for count in range(requests // GREEN_THREADS):
            pool = pools[chance.random() < TLS_IN_A_HUNDRED / 100]
            one_request(pool, chance.choice(METHODS), "%d-%d" % (number, count))
            eventlet.sleep(chance.expovariate(500))

    before = present()
    options = {"maxsize": CONNECTIONS, "block": True, "retries": False, "timeout": 30.0}
    certified = [{}, {"ca_certs": ca_path}]
    pools = [urllib3.connection_from_url(u, **options, **ca) for u, ca in zip(urls, certified)]
    threads = [eventlet.spawn(green_thread, number) for number in range(GREEN_THREADS)]
    while threads:
        threads.pop().wait()
    snapshot = stalepool.snapshot()
    found.update(counters=snapshot["totals"], fallbacks=snapshot["fallbacks"])
    while pools:
        pools.pop().close()
    return {**found, "left_over": present() - before}


def present():
    """How many descriptors, green threads and listeners of the hub there are."""
    import greenlet
    from eventlet import hubs

    gc.collect()
    hub = hubs.get_hub()
    green = [thing for thing in gc.get_objects() if isinstance(thing, greenlet.greenlet)]
    return Counter(
        descriptors=len(os.listdir("/proc/self/fd")),
        green_threads=sum(not thread.dead for thread in green),
        listeners=len(hub.get_readers()) + len(hub.get_writers()),
    )


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S)
def test_soak(request, call_python):
    plain, encrypted = servers = [FaultServer(default=PickFault(), tls=t) for t in (None, TLS())]
    with plain, encrypted:
        words = [request.config.getoption("--soak"), TLS().ca_path, plain.url, encrypted.url]
        # eventlet leaves a TLS socket whose handshake failed to its finalizer, which closes it and
        # warns. Descriptors that stay open are counted in the client itself
        flags = ["-Wignore:unclosed:ResourceWarning"]
        settings = {"STALEPOOL_NONIDEMPOTENT_MAX_IDLE_S": "0.2"}
        options = {"world": "eventlet", "env": settings, "flags": flags, "timeout": LONGEST_S}
        report = call_python(run_client, *words, **options)
    # every idempotent request answered, no answer given to another; nothing is left over
    assert (report["lost"], report["wrong"], report["left_over"]) == ([], [], {})
    assert report["fallbacks"] == {}
    # no other one processed twice, and each that was answered processed
    entries = [entry for server in servers for entry in server.journal]
    arrived = [entry for entry in entries if entry.method in NON_IDEMPOTENT]
    processed = Counter(entry.request_id for entry in arrived if entry.processed)
    assert set(processed.values()) == {1}
    assert {entry.request_id for entry in arrived} - set(processed) <= set(report["failed"])
    # and it has all been met
    for server in servers:
        picked = {type(entry.step) for entry in server.journal if entry.step is not ECHO}
        assert len(picked) >= 11
    assert report["counters"]["replays"].keys() == {"ok"}
    assert report["counters"]["replays_refused"].keys() <= {"method", "answer_began"}
    assert report["counters"]["moved"].keys() >= {"idle_setting"}
