"""A reused connection that fails, and what came of the request it carried."""

import contextlib
import gc
import itertools
import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Optional

import urllib3
import wrapt

import stalepool_testing as testing
from errors import links
from pools import pooled_connection, serving
from stalepool.connection.state import Request, find
from stalepool_testing import AnswerStep, Respond, kernel

IDEMPOTENT = ("GET", "PUT", "DELETE")
NON_IDEMPOTENT = ("POST", "PATCH")
METHODS = IDEMPOTENT + NON_IDEMPOTENT
BODIES = {"PUT": b"put", "POST": b"pay 10", "PATCH": b"add 1"}

ECHO = Respond(200, testing.echo)

#: what :func:`outcome` says where no answer came; urllib3 1.26 has an error of its own behind it
NO_ANSWER = ["ProtocolError", "RemoteDisconnected"]

_serial = itertools.count()


class Outcome(NamedTuple):
    """What came of one request."""

    status: Optional[int]  # of its answer, if there is one
    is_own_answer: bool  # the server echoes
    error: Optional[BaseException]  # what the caller got in its place
    arrivals: int  # how often it came to the server
    processed: int  # how often the server acted on it


@dataclass(frozen=True)
class Late(AnswerStep):
    """Ends the connection so long after the head has arrived, by another step. Not processed."""

    step: AnswerStep
    seconds: float = 0.2
    keeps_connection = False

    def answer(self, exchange):
        exchange.channel.pause(self.seconds)
        self.step.answer(exchange)


class ToAUnixSocket(urllib3.connection.HTTPConnection):
    """Has a ``connect()`` of its own, as docker's; to which address does not matter here."""

    def connect(self):
        super().connect()


@contextlib.contextmanager
def reused(*steps, default=ECHO, times=1, connection_class=None, **options):
    """A server, and a pool with a connection that has answered; the steps meet what comes next."""
    with serving([ECHO] * times + list(steps), default=default, **options) as (server, pool):
        pool.ConnectionCls = connection_class or pool.ConnectionCls
        prime(pool, times)
        yield server, pool


def prime(pool, times=1):
    """Have the pool's connection answer; the first checkout then is a full one, others fast."""
    for _ in range(times):
        # a busy machine takes its time to connect, and a short keep-alive may end before that
        assert pool.request("GET", "/prime", timeout=30.0, retries=3).status == 200


def send(server, pool, method, **options):
    """Send one request, and ask the server's journal about it."""
    request_id = "request-%04d" % next(_serial)  # all as long: half of an answer is, too
    options.setdefault("body", BODIES.get(method))
    headers = {"X-Request-Id": request_id, **options.pop("headers", {})}
    try:
        response = pool.request(method, "/wanted", headers=headers, **options)
    except Exception as error:
        seen = None, False, error
    else:
        is_own = response.headers.get("X-Request-Id") == request_id
        if response.status == 200 and response.data:
            is_own = is_own and json.loads(response.data)["method"] == method
        seen = response.status, is_own, None
    entries = [entry for entry in server.journal if entry.request_id == request_id]
    return Outcome(*seen, len(entries), sum(entry.processed for entry in entries))


def outcome(pool, method, **options):
    """The status of the answer, or the names of the error's class and of its cause's."""
    try:
        return pool.request(method, "/wanted", **options).status
    except Exception as error:
        return [type(link).__name__ for link in links(error)[:2]]


def asked(server):
    """How often the request under test came to the server."""
    return server.journal.count(path="/wanted")


def kind_of(error):
    """What an error says to the caller. The class alone says it differently from one race to the
    next: a request in two segments meets EOF or ECONNRESET, over TLS when it is sent or later.
    """
    chain = links(error)
    if not chain:
        return None
    if any(isinstance(link, urllib3.exceptions.ReadTimeoutError) for link in chain):
        return "read timeout"
    if any(type(link).__name__ in ("IncompleteRead", "BadStatusLine") for link in chain):
        return "half an answer"
    if any(isinstance(link, (ConnectionError, ssl.SSLError)) for link in chain):
        return "connection"
    return "other: %r" % chain


def after_checkout(pool, act):
    """Have something done to the pool's connection, once, when the next request has it."""
    stock_method, acts = pool._validate_conn, [act]

    def validate(conn):
        if acts:
            acts.pop()(conn)
        return stock_method(conn)

    pool._validate_conn = validate


def silent_after_checkout(pool):
    """The next request has to leave its connection, as if no probe had been answered there."""
    after_checkout(pool, lambda conn: setattr(find(conn.sock), "is_silent", True))


def wrapped_by_a_tracer(cls, act):
    """A class whose ``connect()`` is urllib3's, and afterwards has something done with it."""

    def connect(wrapped, conn, args, kwargs):
        wrapped(*args, **kwargs)
        act(conn)

    return type("Traced", (cls,), {"connect": wrapt.FunctionWrapper(cls.connect, connect)})


def acting(pool, act):
    """Have something done each time that the pool's connection, or a copy of it, has connected."""
    conn = pooled_connection(pool)
    conn.__class__ = wrapped_by_a_tracer(type(conn), lambda conn: act())


def have(server, step, events=kernel.POLLIN):
    """What does an idle step to the newest connection, and waits until it has arrived."""
    return lambda conn: (server.perform(step), wait_for(events)(conn))


def reset_after_checkout(server, pool):
    """The next request's connection is reset behind the check: its first send fails."""
    after_checkout(pool, have(server, testing.ResetAfter(), kernel.POLLRDHUP))


def wait_for(events):
    """What waits until poll events have arrived at a connection.

    On a busy machine haproxy's timeout may have passed before the checkout: nothing is left then.
    """
    return lambda conn: conn.sock and kernel.wait_readable(conn.sock, events=events)


def side_by_side(calls, at_once=16):
    """What the calls return, or one of them raises; each in a thread, green where threads are."""
    assert testing.TLS().ca_path  # made here, once, and not by several threads at a time
    with ThreadPoolExecutor(at_once) as executor:
        running = [executor.submit(call) for call in calls]
    return [call.result() for call in running]


def recorded():
    """Bytes of requests that are on record, whether their connections are gone or not."""
    requests = [each for each in gc.get_objects() if type(each) is Request]
    return sum(sum(map(len, each.sent)) for each in requests)
