"""A connection opened before ``fork()`` is the parent's: the child lets go of its descriptor only.

The server lives in the test, the client in a process of its own, which forks. ``who`` asked for a
page is in its path; the journal says which connection each came on.
"""

from __future__ import annotations

import pytest

import lanes
from stalepool_testing import TLS, FaultServer, Respond, echo
from worlds import WITH_TESTS

CLIENT = """
    import json, os, ssl, socket, sys
    host, port, ca_path, who, world = sys.argv[1:]
    import worlds
    if world != "threads":
        worlds.enter(world)
    import urllib3
    import stalepool
    from pools import CHECKOUT_ALONE, await_arrival, pooled_connection
    from stalepool_testing import into_pool

    if who == "stock":
        stalepool.uninstall()
    else:
        stalepool.install(**CHECKOUT_ALONE)
    options = dict(maxsize=1, retries=False, timeout=10)
    if ca_path:
        pool = urllib3.HTTPSConnectionPool(host, int(port), ca_certs=ca_path, **options)
    else:
        pool = urllib3.HTTPConnectionPool(host, int(port), **options)

    def ask(path):
        try:
            response = pool.request("GET", path)
        except urllib3.exceptions.HTTPError as error:
            return type(error).__name__
        return json.loads(response.data)["path"]

    def verdicts():
        return stalepool.snapshot()["totals"]["verdicts"]

    def in_child(act):
        # what act() returns there comes back as JSON, and the child is gone
        ear, mouth = os.pipe()
        child = os.fork()
        if not child:
            if world == "eventlet":
                import eventlet.hubs
                eventlet.hubs.use_hub()  # as services do: the parent's epoll is not the child's
            said = act()
            pool.close()
            os.write(mouth, json.dumps(said).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(mouth)
        with os.fdopen(ear) as file:
            return json.load(file)
"""


@pytest.fixture
def run_client(run_python):
    """Runs a script against a server; what it printed, and the connection of each path."""

    def run(script, who, world="threads", version=None, num_tickets=0):
        tls = None if version is None else TLS(version, num_tickets=num_tickets)
        with FaultServer(tls=tls, default=Respond(200, echo)) as server:
            ca_path = tls.ca_path if tls else ""
            arguments = (server.host, server.port, ca_path, who, world)
            said = run_python(CLIENT + script, *arguments, env=WITH_TESTS)
            return said, {entry.path: entry.connection for entry in server.journal}

    return run


PARENT_CHILD_PARENT = """
    ask("/parent/1"), ask("/parent/2")
    child = in_child(lambda: [ask("/child/1"), ask("/child/2"), verdicts()])
    print(json.dumps([child, ask("/parent/3"), ask("/parent/4"), verdicts()]))
"""


@pytest.mark.parametrize(
    "world, version",
    lanes.first(
        2,  # the tests below have plain ones
        [
            *(("threads", "TLSv1.3"), ("eventlet", "TLSv1.3")),
            *(("threads", "TLSv1.2"), ("threads", None), ("eventlet", None)),
        ],
    ),
)
def test_each_has_its_own(run_client, world, version):
    (child, *parent), connections = run_client(PARENT_CHILD_PARENT, "shim", world, version)

    assert child == ["/child/1", "/child/2", {"foreign_process": 1, "alive": 1}]
    # usable as if nothing had happened: no close_notify, no FIN, no record of it read
    assert parent == ["/parent/3", "/parent/4", {"alive": 3}]
    assert connections == {
        **dict.fromkeys(("/parent/1", "/parent/2", "/parent/3", "/parent/4"), 0),
        **dict.fromkeys(("/child/1", "/child/2"), 1),
    }


def test_stock_shares_one_connection(run_client):
    (child, *parent), connections = run_client(PARENT_CHILD_PARENT, "stock", version="TLSv1.3")

    assert child[0] == "/child/1"
    assert connections["/child/1"] == connections["/parent/1"] == 0
    # two writers of one TLS stream: the parent's next record is a repetition to the server
    assert parent[0] in ("ProtocolError", "SSLError", "ReadTimeoutError")


def test_the_child_reads_nothing_of_the_parents(run_client):
    """Session tickets lie unread at the fork: the child's check would take them off the parent."""
    script = """
    context = ssl.create_default_context(cafile=ca_path)
    bare = socket.create_connection((host, int(port)))
    into_pool(pool, context.wrap_socket(bare, server_hostname="localhost"))
    await_arrival(pool)
    child = in_child(lambda: [ask("/child/1"), verdicts()])
    print(json.dumps([child, ask("/parent/1"), verdicts()]))
    """
    said, _ = run_client(script, "shim", version="TLSv1.3", num_tickets=2)

    assert said == [["/child/1", {"foreign_process": 1}], "/parent/1", {"alive": 1}]


def test_pooled_before_the_shim_came(run_client):
    script = """
    stalepool.uninstall()
    ask("/parent/1")
    stalepool.install(**CHECKOUT_ALONE)
    child = in_child(lambda: [ask("/child/1"), ask("/child/2"), verdicts()])
    print(json.dumps([child, ask("/parent/2"), verdicts()]))
    """
    (child, *parent), connections = run_client(script, "shim")

    assert child == ["/child/1", "/child/2", {"foreign_process": 1, "alive": 1}]
    assert parent == ["/parent/2", {"alive": 1}]
    assert connections == {"/parent/1": 0, "/child/1": 1, "/child/2": 1, "/parent/2": 0}


def test_a_worker_that_forks_before_it_connects_and_a_grandchild(run_client):
    """Nothing is foreign to the one, as in nova-api; to the other its grandparent's connection."""
    script = """
    worker = in_child(lambda: [ask("/worker/1"), ask("/worker/2"), verdicts()])
    ask("/parent/1")

    def child():
        first = ask("/child/1")
        return [first, in_child(lambda: [ask("/grandchild/1"), verdicts()]), ask("/child/2")]

    print(json.dumps([worker, in_child(child), ask("/parent/2"), verdicts()]))
    """
    (worker, *said), connections = run_client(script, "shim")

    assert worker == ["/worker/1", "/worker/2", {"alive": 1}]
    grandchild = ["/grandchild/1", {"foreign_process": 1}]
    assert said == [["/child/1", grandchild, "/child/2"], "/parent/2", {"alive": 1}]
    assert list(connections.items()) == [
        *(("/worker/1", 0), ("/worker/2", 0), ("/parent/1", 1), ("/child/1", 2)),
        *(("/grandchild/1", 3), ("/child/2", 2), ("/parent/2", 1)),
    ]
