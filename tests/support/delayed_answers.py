"""Answers that come when a test says so, or never; what the kernel says of a silent peer."""

import contextlib
import threading
import time
from dataclasses import dataclass, field

from breaks import breaks
from pools import counters, pooled_connection, serving, shim
from replay_tools import ECHO, prime
from stalepool.sockets.tcp_info import TcpInfo
from stalepool_testing import AnswerStep

#: what the kernel says of a peer that has been silent for four seconds
SILENT = TcpInfo(**dict.fromkeys(TcpInfo._fields, 0))._replace(
    **{"state": 1, "snd_wnd": 1000, "is_whole": True, "last_data_sent_ms": 4000},
    **{"last_data_recv_ms": 4000, "last_ack_recv_ms": 4000},
)
#: and has not acknowledged the request
LOST = {"unacked": 1, "retransmits": 4}


def kernel_says(**facts):
    """Of every socket, beside :data:`SILENT`; a context manager."""
    return breaks("TCP_INFO", by=lambda _: SILENT._replace(**facts))


def nothing_is_acknowledged():
    """From now on, by the kernel's word; a context manager."""
    return kernel_says(**LOST)


@dataclass(frozen=True)
class AnswerLater(AnswerStep):
    """Takes the request, says that it came, and answers when it is told to."""

    told: threading.Event
    status: int = 200
    came: threading.Event = field(default_factory=threading.Event)
    was_sent: threading.Event = field(default_factory=threading.Event)

    def answer(self, exchange):
        exchange.process()
        self.came.set()
        assert self.told.wait(20)
        exchange.respond(self.status, b"ok")
        self.was_sent.set()


@contextlib.contextmanager
def sent_twice(answer, first_status=200, outcome="failed", **options):
    """A pool whose next request is not answered, until told, and is sent on a fresh socket, too.

    ``answer``: a function that makes the step of the second sending; ``outcome``: of that. Both end
    in half of the time.
    """
    later = AnswerLater(threading.Event(), first_status)

    def step(request):
        if later.came.is_set():
            return answer(later, conn)
        return later if request.path == "/wanted" else ECHO

    options = {"timeout": 20, **options}
    with shim(replay="idempotent", silence_s=1), nothing_is_acknowledged(), serving(
        step, **options
    ) as (server, pool):
        prime(pool)
        conn, began = pooled_connection(pool), time.monotonic()
        yield server, pool, later
        later.told.set()
        assert time.monotonic() - began < options["timeout"] / 2
        assert counters(server)["replays"] == {outcome: 1}
        # one that was answered is not
        assert counters(server)["gone"] == ({"silent_in_request": 1} if outcome == "ok" else {})
