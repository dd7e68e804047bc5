"""Under eventlet the check never switches to another green thread, whatever it finds.

greenlet's own trace counts the switches, so nothing escapes it. Stock's check makes two full laps
of the hub, during which connections die; each client runs in a process of its own.
"""

from __future__ import annotations

import pytest

import lanes
from socket_states import GREEN_KINDS, KINDS, STATES, is_possible, verdict_on
from stalepool_testing import TLS, FaultServer, Respond
from worlds import WITH_TESTS

GREEN = """
    import sys, worlds
    worlds.enter("eventlet")
    import json, os
    import eventlet, greenlet
    import urllib3
    import stalepool
    from stalepool import runtime, stats
    import stalepool_testing as testing
    from stalepool_testing import into_pool
    from socket_states import KINDS, STATES, arm_keepalive, is_possible
    from pools import CHECKOUT_ALONE, await_probe

    pools = []
    laps = 0

    def run_laps():
        global laps
        while True:
            laps += 1
            eventlet.sleep(0)

    def switches_during(call):
        "How often anything switched anywhere, how many laps the others made; and the result."
        seen = []
        before = laps
        greenlet.settrace(lambda event, ends: seen.append(event))
        try:
            result = call()
        finally:
            greenlet.settrace(None)
        return len(seen), laps - before, result

    def check(conn):
        return switches_during(lambda: urllib3.connectionpool.is_connection_dropped(conn))

    def new_connection(sock):
        is_tls = hasattr(sock, "pending")
        Pool = urllib3.HTTPSConnectionPool if is_tls else urllib3.HTTPConnectionPool
        pools.append(Pool("127.0.0.1", 1, maxsize=1))  # one that is thrown away closes it
        return into_pool(pools[-1], sock)

    def verdicts(asked_before={}):
        "The verdicts since the last time they were asked for."
        found = stalepool.snapshot()["totals"]["verdicts"]
        news = [name for name in found if found[name] != asked_before.get(name, 0)]
        asked_before.update(found)
        return news
"""


@pytest.mark.parametrize("kind", lanes.first(1, reversed(GREEN_KINDS)))
def test_at_the_first_check(run_python, kind):
    """While 50 others are runnable, as in the tests below."""
    script = """
    kind, = sys.argv[1:]
    stalepool.install(**CHECKOUT_ALONE)
    for _ in range(50):
        eventlet.spawn(run_laps)
    found = []
    for name, state in STATES.items():
        if is_possible(KINDS[kind], state):
            with KINDS[kind].make(state.tickets) as pair:
                state.enter(pair)
                found.append([name, check(new_connection(pair.client)), verdicts()])
    print(json.dumps(found))
    """
    found = run_python(GREEN + script, kind, env=WITH_TESTS)

    assert [name for name, _, _ in found] == [
        name for name in STATES if is_possible(KINDS[kind], STATES[name])
    ]
    for name, (switches, laps, dropped), seen in found:
        wanted = verdict_on(kind, name)
        assert (name, seen, dropped) == (name, [wanted.value], wanted.is_discard)
        assert (name, switches, laps) == (name, 0, 0)


@pytest.mark.parametrize("kind", lanes.first(1, ["tls1.3", "ipv4"]))
def test_at_the_fast_check(run_python, kind):
    """The fast check of the hot path, and what it hands over to the full one."""
    script = """
    kind, = sys.argv[1:]
    stalepool.install(**CHECKOUT_ALONE)
    for _ in range(50):
        eventlet.spawn(run_laps)
    found = []
    for name, state in STATES.items():
        if is_possible(KINDS[kind], state) and not state.tickets and not state.is_slow:
            with KINDS[kind].make() as pair:
                conn = new_connection(pair.client)
                urllib3.connectionpool.is_connection_dropped(conn)  # the full check
                fast = check(conn)
                verdicts()
                state.enter(pair)
                found.append([name, fast, check(conn), verdicts()])
    print(json.dumps(found))
    """
    found = run_python(GREEN + script, kind, env=WITH_TESTS)

    assert len(found) > 5
    for name, fast, (switches, laps, dropped), seen in found:
        wanted = verdict_on(kind, name)
        assert (name, fast) == (name, [0, 0, False])
        assert (name, seen, dropped) == (name, [wanted.value], wanted.is_discard)
        assert (name, switches, laps) == (name, 0, 0)


RULES = """
    def idle_too_long(conn, pair):
        stalepool.install(**CHECKOUT_ALONE, max_idle_s=0.001)
        eventlet.sleep(0.02)

    def probe_unanswered(conn, pair):
        stats.origin("http://127.0.0.1:1").knowledge.note_probe_answered()
        testing.swallow(pair.peer)
        arm_keepalive(pair.client, count=9)
        await_probe(pair.client)
        stalepool.install(**CHECKOUT_ALONE, max_idle_s=50)  # a full check is due

    def foreign_process(conn, pair):
        runtime.fork_generation += 1
        stalepool.install(**CHECKOUT_ALONE, max_idle_s=50)  # a full check is due

    def no_socket(conn, pair):
        conn.sock.close()

    for _ in range(50):
        eventlet.spawn(run_laps)
    found = []
    for kind in "ipv4", "tls1.3":
        for rule in idle_too_long, foreign_process, no_socket, probe_unanswered:
            if (kind, rule) == ("tls1.3", probe_unanswered):
                continue  # a second to wait for, and TLS has no part in it
            stalepool.install(**CHECKOUT_ALONE)
            runtime.fork_generation = 0
            with KINDS[kind].make() as pair:
                conn = new_connection(pair.client)
                urllib3.connectionpool.is_connection_dropped(conn)
                verdicts()
                rule(conn, pair)
                found.append([kind, rule.__name__, check(conn), verdicts()])
    print(json.dumps(found))
"""


def test_by_our_own_rules(run_python):
    found = run_python(GREEN + RULES, env=WITH_TESTS)

    rules = ("idle_too_long", "foreign_process", "no_socket")
    assert found == [
        *(["ipv4", rule, [0, 0, True], [rule]] for rule in (*rules, "probe_unanswered")),
        *(["tls1.3", rule, [0, 0, True], [rule]] for rule in rules),
    ]


@pytest.mark.full
def test_stocks_check_makes_two_laps(run_python):
    script = """
    stalepool.uninstall()
    for _ in range(50):
        eventlet.spawn(run_laps)
    found = []
    for kind in "ipv4", "tls1.3":
        with KINDS[kind].make() as pair:
            conn = new_connection(pair.client)
            for _ in range(3):
                found.append(check(conn))
    print(json.dumps(found))
    """
    found = run_python(GREEN + script, env=WITH_TESTS)

    for switches, laps, dropped in found:
        assert dropped is False
        assert laps >= 2 * 50  # each of the 50 ran twice
        assert switches > laps


TO_THE_FIRST_BYTE = """
    host, port, ca_path = sys.argv[1:]
    switches = 0
    marks = []

    def count(event, ends):
        global switches
        switches += 1

    def measure():
        # switches between the question and the first byte, for each of three requests
        def is_connection_dropped(conn, check=urllib3.connectionpool.is_connection_dropped):
            marks.append(switches)
            return check(conn)

        class Connection(pool.ConnectionCls):
            def send(self, data):
                marks.append(switches)
                return super().send(data)

        stocks_or_ours = urllib3.connectionpool.is_connection_dropped
        urllib3.connectionpool.is_connection_dropped = is_connection_dropped
        pool.ConnectionCls = Connection
        pool.request("GET", "/")
        found = []
        for _ in range(3):
            del marks[:]
            greenlet.settrace(count)
            pool.request("GET", "/")
            greenlet.settrace(None)
            found.append(marks[1] - marks[0])
        pool.close()
        urllib3.connectionpool.is_connection_dropped = stocks_or_ours
        return found

    for _ in range(50):
        eventlet.spawn(run_laps)
    said = {}
    for who in "shim", "stock":
        if who == "stock":
            stalepool.uninstall()
        if ca_path:
            pool = urllib3.HTTPSConnectionPool(host, int(port), ca_certs=ca_path, maxsize=1)
        else:
            pool = urllib3.HTTPConnectionPool(host, int(port), maxsize=1)
        said[who] = measure()
    print(json.dumps(said))
"""


@pytest.mark.parametrize("version", [None, "TLSv1.3"])
def test_from_the_verdict_to_the_first_byte(run_python, version):
    """All that lies between, with everything the shim does on by default."""
    tls = None if version is None else TLS(version)
    with FaultServer(tls=tls, default=Respond(200)) as server:
        arguments = (server.host, server.port, tls.ca_path if tls else "")
        said = run_python(GREEN + TO_THE_FIRST_BYTE, *arguments, env=WITH_TESTS)
        assert len(server.journal.connections) == 2  # one for each: all were reused

    assert said["shim"] == [0, 0, 0]
    assert all(switches > 100 for switches in said["stock"])
