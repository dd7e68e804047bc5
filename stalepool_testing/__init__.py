"""Dead connections to test HTTP clients with: real sockets, real faults, no mocks.

Importing it does not import ``stalepool``, and never switches the shim on, as importing a
``stalepool.testing`` would. A test switches it on: ``with stalepool_on():``. For pytest all of it
comes as fixtures (``pytest_stalepool``).

**Sockets in a given state**, for code that takes a socket::

    import urllib3
    from stalepool_testing import FaultServer, eof, into_pool

    def test_the_pool_notices_a_closed_connection():
        with FaultServer() as server, eof() as pair:
            pool = urllib3.HTTPConnectionPool("127.0.0.1", server.port)
            into_pool(pool, pair.client)
            assert pool.request("GET", "/").status == 200

**A server that fails by script**, for whole clients: :class:`FaultServer` explains scripts. Their
steps are in :mod:`~stalepool_testing.steps` and :mod:`~stalepool_testing.idle_steps`, and the
faults that can be added to a running server in :mod:`~stalepool_testing.faults`.

If the machine cannot do something, :class:`Unavailable` is raised, an ``OSError`` that says why:
skip the test then.

It needs only the standard library, and for TLS trustme, which makes the certificates:
``stalepool[testing]``. Black holes need Linux, the rest a POSIX system. Under
``eventlet.monkey_patch()`` all of it is green.
"""

from stalepool_testing.blackhole import release, swallow
from stalepool_testing.channel import Channel
from stalepool_testing.connect_proxy import ConnectProxy
from stalepool_testing.contexts import fault_server, proxy
from stalepool_testing.exchange import Exchange
from stalepool_testing.faults import Bandwidth, Blackout, Fault, Latency, ResetAtNextByte
from stalepool_testing.hub import no_hub_switch
from stalepool_testing.idle_steps import (
    BlackHole,
    CloseAfter,
    FinWithin,
    HalfCloseAfter,
    HalfCloseThenProcess,
    LingeringClose,
    ResetAfter,
    Surplus,
)
from stalepool_testing.journal import Connection, Entry, IdleStepDone, Journal
from stalepool_testing.kernel import Unavailable, wait_readable
from stalepool_testing.messages import Request, echo
from stalepool_testing.network import AddedFault
from stalepool_testing.pool import into_pool
from stalepool_testing.script import AnswerStep, IdleStep, Step
from stalepool_testing.server import FaultServer
from stalepool_testing.shim import stalepool_off, stalepool_on
from stalepool_testing.sockets import Pair, black_hole, eof, half_closed, healthy, reset, unread
from stalepool_testing.states import stale_socket, stale_states
from stalepool_testing.steps import (
    Close,
    HalfAnswer,
    HalfStatusLine,
    ProcessThenClose,
    ProcessThenReset,
    Reset,
    Respond,
    RespondThenClose,
    Silence,
    SlowAnswer,
    SurplusWithAnswer,
    ZeroWindow,
)
from stalepool_testing.tls import TLS
from stalepool_testing.tls_sockets import (
    close_notify,
    key_update,
    late_ticket,
    surplus_in_tls,
    tls_healthy,
    tls_unread,
)

__all__ = [
    "TLS",
    "AddedFault",
    "AnswerStep",
    "Bandwidth",
    "BlackHole",
    "Blackout",
    "Channel",
    "Close",
    "CloseAfter",
    "ConnectProxy",
    "Connection",
    "Entry",
    "Exchange",
    "Fault",
    "FaultServer",
    "FinWithin",
    "HalfAnswer",
    "HalfCloseAfter",
    "HalfCloseThenProcess",
    "HalfStatusLine",
    "IdleStep",
    "IdleStepDone",
    "Journal",
    "Latency",
    "LingeringClose",
    "Pair",
    "ProcessThenClose",
    "ProcessThenReset",
    "Request",
    "Reset",
    "ResetAfter",
    "ResetAtNextByte",
    "Respond",
    "RespondThenClose",
    "Silence",
    "SlowAnswer",
    "Step",
    "Surplus",
    "SurplusWithAnswer",
    "Unavailable",
    "ZeroWindow",
    "black_hole",
    "close_notify",
    "echo",
    "eof",
    "fault_server",
    "half_closed",
    "healthy",
    "into_pool",
    "key_update",
    "late_ticket",
    "no_hub_switch",
    "proxy",
    "release",
    "reset",
    "stale_socket",
    "stale_states",
    "stalepool_off",
    "stalepool_on",
    "surplus_in_tls",
    "swallow",
    "tls_healthy",
    "tls_unread",
    "unread",
    "wait_readable",
]
