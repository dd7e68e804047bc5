"""eventlet issue 798: a green ``select()`` with a timeout of 0 that sleeps until the peer closes.

Between arming its two zero timers and its switch to the hub, one yield is enough: both timers fire
meanwhile, and nothing wakes it any more. urllib3's own check at checkout is such a ``select()``.
That ours never switches is in ``test_checkout_never_yields``.
"""

import pytest

from outages import both, environ_of
from pools import stock
from stalepool_testing import CloseAfter, FaultServer, Respond

SERVER_CLOSES_S = 2.0

CLIENT = """
    import json, sys, time
    from worlds import enter
    enter("eventlet")
    import eventlet, stalepool, urllib3

    hub, asked, took_s = eventlet.hubs.get_hub(), [], []
    add = hub.add

    def slow_add(event, descriptor, callback, *rest):
        # a log line, a lock, a garbage collection: whatever lets another green thread run
        listener = add(event, descriptor, callback, *rest)
        if callback.__qualname__.startswith("select."):
            asked.append(callback)
            if len(asked) == 5:
                eventlet.sleep(0.01)
        return listener

    def work():
        with urllib3.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), maxsize=1) as pool:
            for _ in range(10):
                began = time.monotonic()
                assert pool.request("GET", "/").status == 200
                took_s.append(time.monotonic() - began)

    hub.add = slow_add
    eventlet.spawn(work).wait()
    print(json.dumps([len(asked), max(took_s)]))
"""


@pytest.mark.full
@both
def test_a_check_that_hangs(run_python, who):
    """Stock: until the server closes the connection, for ever if it does not. We do not ask."""
    with FaultServer(lambda _: [Respond(200), CloseAfter(SERVER_CLOSES_S)]) as server:
        asked, longest_s = run_python(CLIENT, server.port, env=environ_of(who))
        seen = asked > 0, longest_s > SERVER_CLOSES_S / 2, len(server.journal.connections)
    assert seen == ((True, True, 2) if who is stock else (False, False, 1))
