"""A small model of a pooled connection, walked at random against the real one on real sockets.

The walks are the same each time; ``--full`` makes them longer, and more, without TLS as well.
"""

import contextlib

import pytest
import urllib3
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

import lanes
import stalepool
import stalepool_testing as testing
from breaks import breaks
from pools import await_arrival, end_while_idle, pool_for, shim
from replay_tools import ECHO, IDEMPOTENT, METHODS, after_checkout, have, send
from stalepool import runtime
from stalepool.connection import state
from stalepool.connection.state import CHECKED, FRESH, IDLE, SENDING, UPGRADED
from stalepool_testing import TLS, Close, CloseAfter, FaultServer, HalfCloseAfter, Surplus, kernel

pytestmark = pytest.mark.timeout(600)  # with --full

SETTINGS = {"replay": "idempotent", "presend_check": True}

#: by which a server ends a connection that idles
ENDS = [CloseAfter(0), testing.ResetAfter(0), HalfCloseAfter(0), Surplus(408, seconds=0)]
#: with which it meets a request
MEETS = [Close(), testing.Reset()]

UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class Model:
    """What is known of the pool's one connection before a request."""

    def __init__(self):
        self.phase = FRESH
        self.has_ended = False  # or is a parent process's
        self.has_answered = False
        self.connections = 0

    def request(self, method, ends):
        """Tell whether a request is answered whose connection ends in this phase of it."""
        is_reused = self.phase is not FRESH and not self.has_ended
        if not is_reused:
            self.phase, self.has_ended, self.has_answered = FRESH, False, False
            self.connections += 1
        if ends is None or (ends == "checked" and not is_reused):
            is_answered = True
        else:
            is_ours = self.phase is not UPGRADED
            is_moved = ends == "checked" and is_ours
            is_replayed = self.has_answered and is_ours and method in IDEMPOTENT
            is_answered = is_moved or is_replayed
            self.connections += is_answered
        if self.phase is not UPGRADED or ends is not None:
            self.phase = IDLE if is_answered else FRESH
        self.has_answered = is_answered
        return is_answered


class Walk(stateful.RuleBasedStateMachine):
    tls = None

    def __init__(self):
        super().__init__()
        self.model, self.script = Model(), []
        self.open = contextlib.ExitStack()
        self.open.enter_context(shim(**SETTINGS))
        # put back in the end
        self.open.enter_context(breaks("number of forks", by=runtime.fork_generation))
        self.open.enter_context(breaks("sockets that were opened", by=dict(state._opened)))
        self.server = self.open.enter_context(
            FaultServer(lambda _: (self.script or [ECHO]).pop(), tls=self.tls)
        )
        self.pool = self.open.enter_context(pool_for(self.server, self.tls))

    def teardown(self):
        self.open.close()

    # -- what happens while it idles

    @stateful.initialize(is_pooled=st.booleans())
    def a_connection_from_before_the_shim_came(self, is_pooled):
        """Over TLS its session tickets lie unread."""
        if is_pooled:
            testing.into_pool(self.pool, self.server.connect())
            kernel.wait_until(lambda: self.server.channels, "accepted", 5)
            if self.tls is not None:
                # both: each ticket is sent by itself, and a check would meet the first one alone
                (channel,) = self.server.channels
                kernel.wait_until(channel.sock.gettimeout, "end of the handshake", 5)
                await_arrival(self.pool)
                channel.flush()
            self.model.phase, self.model.connections = IDLE, 1

    @stateful.precondition(lambda self: self.model.phase is not FRESH and not self.model.has_ended)
    @stateful.rule(end=st.sampled_from(ENDS))
    def the_server_ends_it(self, end):
        end_while_idle(self.server, self.pool, end)
        self.model.has_ended = True

    @stateful.rule()
    def fork(self):
        runtime._after_fork_in_child()
        self.model.has_ended = self.model.has_ended or self.model.phase is IDLE

    @stateful.rule()
    def install_anew(self):
        stalepool.uninstall()
        stalepool.install(**SETTINGS)

    # -- requests

    @stateful.rule(method=st.sampled_from(METHODS))
    def request(self, method):
        self.send(method, None)

    @stateful.rule(method=st.sampled_from(METHODS), end=st.sampled_from(ENDS))
    def request_whose_connection_ends_after_the_check(self, method, end):
        if self.model.phase is UPGRADED and isinstance(end, Surplus):
            return  # taken for its answer, as in stock: the connection is somebody else's

        def act(conn):
            if conn.sock is not None:
                self.expect_phase(conn, CHECKED)
                have(self.server, end)(conn)

        after_checkout(self.pool, act)
        self.send(method, "checked")

    @stateful.rule(method=st.sampled_from(["PUT", "POST"]))
    def request_whose_connection_ends_while_it_is_sent(self, method):
        found = []

        def body():
            yield b"abc"
            self.expect_phase(found[0], SENDING)
            kernel.wait_readable(found[0].sock, events=kernel.POLLRDHUP)
            yield b"def"

        self.script.append(Close())
        after_checkout(self.pool, found.append)
        self.send(method, "sending", body=body(), headers={"Content-Length": "6"})

    @stateful.rule(method=st.sampled_from(METHODS), meets=st.sampled_from(MEETS))
    def request_whose_connection_ends_while_it_waits(self, method, meets):
        self.script.append(meets)
        self.send(method, "waiting")

    @stateful.precondition(lambda self: self.model.phase is not UPGRADED)
    @stateful.rule()
    def upgrade(self):
        self.script.append(testing.Respond(101, headers=UPGRADE))
        assert self.model.request("GET", None)
        assert self.pool.request("GET", "/", headers=UPGRADE).status == 101
        self.model.phase = UPGRADED

    def send(self, method, ends, **options):
        wanted = self.model.request(method, ends)
        outcome = send(self.server, self.pool, method, **options)
        assert outcome.is_own_answer is wanted, (outcome, self.model.__dict__)
        assert wanted or isinstance(outcome.error, urllib3.exceptions.HTTPError), outcome
        assert outcome.processed <= 1
        assert method in IDEMPOTENT or outcome.arrivals <= 1

    # -- what holds after each

    def expect_phase(self, conn, phase):
        found = state.find(conn.sock)
        assert found is None or UPGRADED in (found.phase, self.model.phase) or found.phase is phase

    @stateful.invariant()
    def no_more_connections_than_there_have_to_be(self):
        assert len(self.server.journal.connections) == self.model.connections

    @stateful.invariant()
    def it_idles(self):
        conn = self.pool.pool.queue[-1]
        sock = None if conn is None else conn.sock
        assert (sock is None) == (self.model.phase is FRESH)
        if self.model.has_answered:
            found = state.find(sock)
            assert found is not None and (found.phase, found.request) == (self.model.phase, None)


@pytest.mark.parametrize("version", lanes.first(1, ["TLSv1.3", None]))
def test_walks(version, request):
    is_full = request.config.getoption("--full")
    tls = None if version is None else TLS(version, num_tickets=2)
    stateful.run_state_machine_as_test(
        type("Walk", (Walk,), {"tls": tls}),
        settings=settings(
            max_examples=100 if is_full else 12,
            stateful_step_count=30 if is_full else 12,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
