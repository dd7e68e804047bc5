"""eventlet issue 798: a green ``select()`` with a timeout of 0 that sleeps until the peer closes.

Between arming its two zero timers and its switch to the hub, one yield is enough: both timers fire
meanwhile, and nothing wakes it any more. urllib3's own check at checkout is such a ``select()``.
That ours never switches is in ``test_checkout_never_yields``.
"""

from __future__ import annotations

import pytest

from stalepool_testing import CloseAfter, FaultServer, Respond
from worlds import WITH_TESTS

SERVER_CLOSES_S = 2.0
REQUESTS = 10

CLIENT = """
    import json, sys, time

    if sys.argv[1] == "shim":
        import stalepool
    from worlds import enter
    enter("eventlet")
    import eventlet, urllib3
    from eventlet import hubs

    hub = hubs.get_hub()
    add, asked = hub.add, []

    def slow_add(event, descriptor, callback, *rest):
        # a log line, a lock, a garbage collection: whatever lets another green thread run
        listener = add(event, descriptor, callback, *rest)
        if callback.__qualname__.startswith("select."):
            asked.append(callback.__qualname__)
            if len(asked) == 5:
                eventlet.sleep(0.01)
        return listener

    hub.add = slow_add
    took_s = []

    def work():
        with urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[2]), maxsize=1) as pool:
            for _ in range(int(sys.argv[3])):
                began = time.monotonic()
                assert pool.request("GET", "/").status == 200
                took_s.append(time.monotonic() - began)

    eventlet.spawn(work).wait()
    print(json.dumps([len(asked), max(took_s)]))
"""


@pytest.mark.full
@pytest.mark.parametrize("who", ["stock", "shim"])
def test_a_check_that_hangs(run_python, who):
    """Stock: until the server closes the connection, for ever if it does not. We do not ask."""
    with FaultServer(lambda _: [Respond(200), CloseAfter(SERVER_CLOSES_S)]) as server:
        asked, longest_s = run_python(CLIENT, who, server.port, REQUESTS, env=WITH_TESTS)
        connections = len(server.journal.connections)
    if who == "stock":
        assert asked >= 5
        assert longest_s > SERVER_CLOSES_S / 2
        assert connections == 2
    else:
        assert asked == 0
        assert longest_s < SERVER_CLOSES_S / 2
        assert connections == 1
