"""Under eventlet and gevent the check never switches to another green thread, whatever it finds.

greenlet's own trace counts the switches, to the hub as well, so nothing escapes it. Stock's check
makes two full laps of the hub, during which connections die.
"""

from __future__ import annotations

import importlib.util

import pytest

import lanes
from outages import both, environ_of
from pools import stock
from socket_states import GREEN_KINDS, KINDS, STATES, is_possible, may_consume, verdict_on
from stalepool_testing import TLS, FaultServer, Respond
from worlds import WITH_TESTS

GREEN = """
    import sys, worlds
    worlds.enter(sys.argv[1])
    import json, time
    import greenlet
    import urllib3
    import stalepool
    from stalepool import runtime, stats
    import stalepool_testing as testing
    from stalepool_testing import into_pool
    from socket_states import GREEN_KINDS, KINDS, STATES, arm_keepalive, is_possible, look
    from pools import CHECKOUT_ALONE, await_probe

    pools = []

    def check(conn):
        "How often anything switched anywhere, and the result."
        seen = []
        greenlet.settrace(lambda event, ends: seen.append(event))
        result = urllib3.connectionpool.is_connection_dropped(conn)
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
    found = {kind: {"seen": [], "first": [], "fast": []} for kind in GREEN_KINDS}
    rules = []

    def at_the_first_check(kind, name, state):
        found[kind]["seen"].append([name, look(KINDS[kind], state, 1.0 if state.is_slow else None)])
        with KINDS[kind].make(state.tickets) as pair:
            state.enter(pair)
            found[kind]["first"].append([name, check(new_connection(pair.client)), verdicts()])

    def at_the_fast_check(kind, name, state):
        with KINDS[kind].make() as pair:
            conn = new_connection(pair.client)
            urllib3.connectionpool.is_connection_dropped(conn)  # the full check
            verdicts()
            state.enter(pair)
            found[kind]["fast"].append([name, check(conn), verdicts()])

    def by_our_own_rules(rule, kind="tls1.3"):
        stalepool.install(**CHECKOUT_ALONE)
        runtime.fork_generation = 0
        with KINDS[kind].make() as pair:
            conn = new_connection(pair.client)
            urllib3.connectionpool.is_connection_dropped(conn)
            verdicts()
            rule(conn, pair)
            rules.append([rule.__name__, check(conn), verdicts()])

    def idle_too_long(conn, pair):
        stalepool.install(**CHECKOUT_ALONE, max_idle_s=0.001)
        time.sleep(0.02)

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
    for kind in GREEN_KINDS:
        for name, state in STATES.items():
            if is_possible(KINDS[kind], state):
                at_the_first_check(kind, name, state)
                if not state.tickets and not state.is_slow:
                    at_the_fast_check(kind, name, state)
    by_our_own_rules(idle_too_long)
    by_our_own_rules(foreign_process)
    if sys.argv[1] == "eventlet":  # gevent's closed socket is of a kind of its own, not known
        by_our_own_rules(no_socket)
    by_our_own_rules(probe_unanswered, "ipv4")  # TLS has no part in it
    print(json.dumps([found, rules]))
"""


@pytest.mark.parametrize("world", ["eventlet", "gevent"])
def test_at_the_check(run_python, world):
    """The first one and the fast one in each state, and by our own rules.

    And a green socket is as it was: its owner's timeout, the kernel's, and what it has received.
    """
    if importlib.util.find_spec(world) is None:
        pytest.skip("no %s for this Python" % world)
    by_kind, rules = run_python(GREEN + CHECKS, world, env=WITH_TESTS)

    assert by_kind.keys() == set(GREEN_KINDS)
    for kind, found in by_kind.items():
        possible = [name for name in STATES if is_possible(KINDS[kind], STATES[name])]
        assert [name for name, *_ in found["seen"]] == possible
        assert [name for name, *_ in found["first"]] == possible
        assert len(found["fast"]) >= 5
        for name, (verdict, consumed, timeouts_changed) in found["seen"]:
            is_untouched = not timeouts_changed and (not consumed or may_consume(kind, name))
            assert (verdict, is_untouched) == (verdict_on(kind, name).value, True), (kind, name)
        for name, checked, seen in [*found["first"], *found["fast"]]:
            wanted = verdict_on(kind, name)
            is_as_wanted = (seen, checked) == ([wanted.value], [0, wanted.is_discard])
            assert is_as_wanted, (kind, name, seen, checked)
    ours = ["idle_too_long", "foreign_process", "no_socket", "probe_unanswered"]
    if world == "gevent":
        ours.remove("no_socket")
    assert rules == [[rule, [0, True], [rule]] for rule in ours]


TO_THE_FIRST_BYTE = """
    host, port, ca_path = sys.argv[2:]
    Pool = urllib3.HTTPSConnectionPool if ca_path else urllib3.HTTPConnectionPool
    options = {"ca_certs": ca_path} if ca_path else {}
    check = urllib3.connectionpool.is_connection_dropped
    switches, found = [], []

    def is_connection_dropped(conn):
        greenlet.settrace(lambda event, ends: switches.append(event))
        return check(conn)

    class Connection(Pool.ConnectionCls):
        def send(self, data):
            greenlet.settrace(None)
            return super().send(data)

    urllib3.connectionpool.is_connection_dropped = is_connection_dropped
    with Pool(host, int(port), maxsize=1, **options) as pool:
        pool.ConnectionCls = Connection
        for _ in range(4):
            pool.request("GET", "/")
            found.append(len(switches))
            del switches[:]
    print(json.dumps(found))
"""


@pytest.mark.parametrize("hub", lanes.HUBS)
@pytest.mark.parametrize("version", lanes.first(1, ["TLSv1.3", None]))
@both
def test_from_the_verdict_to_the_first_byte(run_python, who, version, hub):
    """All that lies between, with everything the shim does on by default."""
    tls = None if version is None else TLS(version)
    with FaultServer(tls=tls, default=Respond(200)) as server:
        arguments = (server.host, server.port, tls.ca_path if tls else "")
        env = {**environ_of(who), **hub}
        switches = run_python(GREEN + TO_THE_FIRST_BYTE, "eventlet", *arguments, env=env)
        assert len(server.journal.connections) == 1  # all but the first were on a reused one

    assert [count > 0 for count in switches] == [False] + [who is stock] * 3
