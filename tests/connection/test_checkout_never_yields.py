"""Under eventlet and gevent the check never switches to another green thread, whatever it finds.

greenlet's own trace counts the switches, to the hub as well, so nothing escapes it. Stock's check
makes two full laps of the hub, during which connections die; or it hangs (eventlet issue 798), as
the case ``select-hang`` of ``stalepool demo`` shows, without ours and with it.
"""

import importlib.util

import pytest
import urllib3

import lanes
import stalepool
from pools import CHECKOUT_ALONE, both, environ_of, stock
from socket_states import KINDS, STATES, is_possible, look, may_consume, verdict_on
from stalepool.sockets.verdict import Action
from stalepool_testing import TLS, FaultServer, into_pool

#: eventlet's and gevent's sockets are made by the functions that make native ones elsewhere
GREEN_KINDS = ("ipv4", "unix", "tls1.2", "tls1.3")


def check_each_state(world):
    import greenlet

    found, pools, switches, asked_before = [], [], [], {}

    def verdicts():
        """The verdicts since the last time they were asked for."""
        seen = stalepool.snapshot()["totals"]["verdicts"]
        news = [name for name in seen if seen[name] != asked_before.get(name, 0)]
        asked_before.update(seen)
        return news

    def check(kind, name, enter, tickets=0, is_fast=True, looked=None):
        with KINDS[kind].make(tickets) as pair:
            is_tls = hasattr(pair.client, "pending")
            Pool = urllib3.HTTPSConnectionPool if is_tls else urllib3.HTTPConnectionPool
            pools.append(Pool("127.0.0.1", 1, maxsize=1))  # one that is thrown away closes it
            conn = into_pool(pools[-1], pair.client)
            if is_fast:
                urllib3.connectionpool.is_connection_dropped(conn)  # the full one comes first
            verdicts()
            enter(pair)
            switches.clear()
            greenlet.settrace(lambda event, ends: switches.append(event))
            is_dropped = urllib3.connectionpool.is_connection_dropped(conn)
            greenlet.settrace(None)
            found.append([kind, name, [len(switches), is_dropped, verdicts()], looked])

    stalepool.install(**CHECKOUT_ALONE)
    for kind in GREEN_KINDS:
        for name, state in STATES.items():
            if is_possible(KINDS[kind], state):
                seen = look(KINDS[kind], state, 1.0 if state.is_slow else None)
                check(kind, name, state.enter, state.tickets, is_fast=False, looked=seen)
                if not state.tickets and not state.is_slow:
                    check(kind, name, state.enter)
    if world == "eventlet":  # gevent's closed socket is of a kind of its own, not known
        check("tls1.3", "no socket", lambda pair: pair.client.close())
    return found


@pytest.mark.parametrize("world", ["eventlet", "gevent"])
def test_at_the_check(call_python, world):
    """The first one and the fast one in each state.

    And a green socket is as it was: its owner's timeout, the kernel's, and what it has received.
    """
    if importlib.util.find_spec(world) is None:
        pytest.skip("no %s for this Python" % world)
    found = call_python(check_each_state, world, world=world)
    if world == "eventlet":
        assert found.pop()[2] == [0, True, ["no_socket"]]
    for kind, name, checked, looked in found:
        wanted = verdict_on(kind, name)
        assert checked == [0, wanted.action is Action.DISCARD, [wanted.value]], (kind, name)
        if looked is not None:
            verdict, consumed, timeouts_changed = looked
            is_untouched = not timeouts_changed and (not consumed or may_consume(kind, name))
            assert (verdict, is_untouched) == (wanted.value, True), (kind, name)
    possible = [(k, s) for k in GREEN_KINDS for s in STATES if is_possible(KINDS[k], STATES[s])]
    assert [(kind, name) for kind, name, _, looked in found if looked is not None] == possible
    assert len(found) > 1.5 * len(possible)  # those of the fast check


def count_switches(url, ca_path):
    """From the check of each of four requests to the first byte of it."""
    import greenlet

    check = urllib3.connectionpool.is_connection_dropped
    switches, found = [], []

    def is_connection_dropped(conn):
        greenlet.settrace(lambda event, ends: switches.append(event))
        return check(conn)

    urllib3.connectionpool.is_connection_dropped = is_connection_dropped
    with urllib3.PoolManager(ca_certs=ca_path).connection_from_url(url) as pool:

        class Connection(pool.ConnectionCls):
            def send(self, data):
                greenlet.settrace(None)
                return super().send(data)

        pool.ConnectionCls = Connection
        for _ in range(4):
            pool.request("GET", "/")
            found.append(len(switches))
            switches.clear()
    return found


@pytest.mark.parametrize("hub", lanes.HUBS)
@pytest.mark.parametrize("version", lanes.first(1, ["TLSv1.3", None]))
@both
def test_from_the_verdict_to_the_first_byte(call_python, who, version, hub):
    """All that lies between, with everything the shim does on by default."""
    tls = None if version is None else TLS(version)
    with FaultServer(tls=tls) as server:
        arguments, environ = (server.url, tls and tls.ca_path), {**environ_of(who), **hub}
        switches = call_python(count_switches, *arguments, world="eventlet", env=environ)
        assert len(server.journal.connections) == 1  # all but the first were on a reused one
    assert [count > 0 for count in switches] == [False] + [who is stock] * 3
