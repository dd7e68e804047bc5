"""A connection opened before ``fork()`` is the parent's: the child lets go of its descriptor only.

The server lives in the test, the client in a process of its own, which forks. ``who`` asked for a
page is in its path; the journal says which connection each came on.
"""

import functools
import json
import socket
import ssl

import pytest
import urllib3
from urllib3.connection import HTTPConnection

import stalepool
from pools import CHECKOUT_ALONE, await_arrival, get, serving, shim
from stalepool_testing import TLS, FaultServer, Respond, echo, into_pool
from worlds import in_a_fork


def open_pool(url, ca_path):
    stalepool.install(**CHECKOUT_ALONE)
    options = {"ca_certs": ca_path} if ca_path else {}
    return urllib3.connection_from_url(url, maxsize=1, retries=False, timeout=10, **options)


def asked_of(pool):
    """What asks for a page, and returns the path of the one that came."""
    return lambda path: json.loads(pool.request("GET", path).data)["path"]


def verdicts():
    return stalepool.snapshot()["totals"]["verdicts"]


@pytest.fixture
def run_client(call_python):
    """Runs a client against a server; what it returns, and the connection of each path."""

    def run(client, *args, world="threads", version=None, num_tickets=0):
        tls = version and TLS(version, num_tickets=num_tickets)
        with FaultServer(tls=tls, default=Respond(200, echo)) as server:
            said = call_python(client, server.url, tls and tls.ca_path, *args, world=world)
            return said, {entry.path: entry.connection for entry in server.journal}

    return run


def family(url, ca_path, who):
    """A worker that is forked at once, and later a child, which has one of its own."""
    with open_pool(url, ca_path) as pool:
        ask, fork = asked_of(pool), functools.partial(in_a_fork, then=pool.close)
        worker = fork(lambda: [ask("/worker/1"), ask("/worker/2"), verdicts()])
        if who == "shim later":
            stalepool.uninstall()
        ask("/parent/1")
        if who == "shim later":
            stalepool.install(**CHECKOUT_ALONE)

        def child():
            first = ask("/child/1")
            grandchild = fork(lambda: [ask("/grandchild/1"), verdicts()])
            return [first, grandchild, ask("/child/2"), verdicts()]

        return [worker, fork(child), ask("/parent/2"), ask("/parent/3"), verdicts()]


@pytest.mark.parametrize(
    ("who", "world", "version"),
    [
        *(("shim", "threads", "TLSv1.3"), ("shim", "eventlet", "TLSv1.3")),
        # the first connection was pooled before the shim came
        ("shim later", "threads", None),
        pytest.param("shim", "threads", "TLSv1.2", marks=pytest.mark.full),
        pytest.param("shim", "eventlet", None, marks=pytest.mark.full),
    ],
)
def test_each_has_its_own(run_client, who, world, version):
    """Nothing is foreign to a worker that forks before it connects, as in nova-api."""
    said, connections = run_client(family, who, world=world, version=version)
    worker = ["/worker/1", "/worker/2", {"alive": 1}]
    grandchild = ["/grandchild/1", {"foreign_process": 1}]
    child = ["/child/1", grandchild, "/child/2", {"foreign_process": 1, "alive": 1}]
    # usable as if nothing had happened: no close_notify, no FIN, no record of it read
    assert said == [worker, child, "/parent/2", "/parent/3", {"alive": 2}]
    assert connections == {
        **{"/worker/1": 0, "/worker/2": 0, "/child/1": 2, "/child/2": 2, "/grandchild/1": 3},
        **{"/parent/1": 1, "/parent/2": 1, "/parent/3": 1},
    }


def fork_beside_unread_tickets(url, ca_path):
    with open_pool(url, ca_path) as pool:
        ask = asked_of(pool)
        context = ssl.create_default_context(cafile=ca_path)
        bare = socket.create_connection((pool.host, pool.port))
        into_pool(pool, context.wrap_socket(bare, server_hostname="localhost"))
        await_arrival(pool)
        child = in_a_fork(lambda: [ask("/child/1"), verdicts()], then=pool.close)
        return [child, ask("/parent/1"), verdicts()]


def test_the_child_reads_nothing_of_the_parents(run_client):
    """Session tickets lie unread at the fork: the child's check would take them off the parent."""
    said, _ = run_client(fork_beside_unread_tickets, version="TLSv1.3", num_tickets=2)
    assert said == [["/child/1", {"foreign_process": 1}], "/parent/1", {"alive": 1}]


def test_a_child_keeps_what_a_class_opens_unseen(pretend_fork):
    """The descriptor may be that of the parent's connection, which it has discarded."""

    class Unseen(HTTPConnection):
        def connect(self):
            self.sock = socket.create_connection((self.host, self.port))

        def send(self, data):
            if self.sock is None:
                self.connect()
            self.sock.sendall(data)

    with shim(), serving() as (server, pool):
        pool.ConnectionCls = Unseen
        assert get(pool) == 200
        pretend_fork()
        assert [get(pool) for _ in range(3)] == [200] * 3
        assert [entry.connection for entry in server.journal] == [0, 1, 1, 1]


def test_a_childs_own_connections_are_not_foreign(pretend_fork):
    """Those of a class with a connect() of its own, too."""
    with shim(), serving(family=socket.AF_UNIX) as (server, pool):
        pretend_fork()
        assert [get(pool), get(pool)] == [200, 200]
        assert len(server.journal.connections) == 1
