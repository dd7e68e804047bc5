"""Under eventlet the check never switches to another green thread, whatever it finds.

greenlet's own trace counts the switches, to the hub as well, so nothing escapes it. Stock's check
makes two full laps of the hub, during which connections die.
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

    def check(conn):
        "How often anything switched anywhere, and the result."
        seen = []
        greenlet.settrace(lambda event, ends: seen.append(event))
        try:
            result = urllib3.connectionpool.is_connection_dropped(conn)
        finally:
            greenlet.settrace(None)
        return len(seen), result

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

CHECKS = """
    kind, = sys.argv[1:]
    possible = {name: state for name, state in STATES.items() if is_possible(KINDS[kind], state)}
    found = {"first": [], "healthy": [], "fast": [], "rules": []}

    def at_the_first_check(name, state):
        with KINDS[kind].make(state.tickets) as pair:
            state.enter(pair)
            found["first"].append([name, check(new_connection(pair.client)), verdicts()])

    def at_the_fast_check(name, state):
        with KINDS[kind].make() as pair:
            conn = new_connection(pair.client)
            urllib3.connectionpool.is_connection_dropped(conn)  # the full check
            found["healthy"].append(check(conn))
            verdicts()
            state.enter(pair)
            found["fast"].append([name, check(conn), verdicts()])

    def by_our_own_rules(rule, kind=kind):
        stalepool.install(**CHECKOUT_ALONE)
        runtime.fork_generation = 0
        with KINDS[kind].make() as pair:
            conn = new_connection(pair.client)
            urllib3.connectionpool.is_connection_dropped(conn)
            verdicts()
            rule(conn, pair)
            found["rules"].append([rule.__name__, check(conn), verdicts()])

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

    stalepool.install(**CHECKOUT_ALONE)
    for name, state in possible.items():
        at_the_first_check(name, state)
        if not state.tickets and not state.is_slow:
            at_the_fast_check(name, state)
    for rule in idle_too_long, foreign_process, no_socket:
        by_our_own_rules(rule)
    by_our_own_rules(probe_unanswered, "ipv4")  # TLS has no part in it
    print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", lanes.first(1, reversed(GREEN_KINDS)))
def test_at_the_check(run_python, kind):
    """The first one and the fast one in each state, and by our own rules."""
    found = run_python(GREEN + CHECKS, kind, env=WITH_TESTS)

    possible = [name for name in STATES if is_possible(KINDS[kind], STATES[name])]
    assert [name for name, _, _ in found["first"]] == possible
    assert len(found["fast"]) >= 5
    for name, checked, seen in [*found["first"], *found["fast"]]:
        wanted = verdict_on(kind, name)
        assert (name, seen, checked) == (name, [wanted.value], [0, wanted.is_discard])
    assert found["healthy"] == [[0, False]] * len(found["fast"])
    rules = ["idle_too_long", "foreign_process", "no_socket", "probe_unanswered"]
    assert found["rules"] == [[rule, [0, True], [rule]] for rule in rules]


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

    def run_laps():
        while True:
            eventlet.sleep(0)

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


@pytest.mark.parametrize("hub", lanes.HUBS)
@pytest.mark.parametrize("version", lanes.first(1, ["TLSv1.3", None]))
def test_from_the_verdict_to_the_first_byte(run_python, version, hub):
    """All that lies between, with everything the shim does on by default."""
    tls = None if version is None else TLS(version)
    with FaultServer(tls=tls, default=Respond(200)) as server:
        arguments = (server.host, server.port, tls.ca_path if tls else "")
        env = {**WITH_TESTS, **hub}
        said = run_python(GREEN + TO_THE_FIRST_BYTE, *arguments, env=env)
        assert len(server.journal.connections) == 2  # one for each: all were reused

    assert said["shim"] == [0, 0, 0]
    assert all(switches > 100 for switches in said["stock"])
