"""Every fault that a request on a pooled connection can meet, and what comes of it.

:func:`run` plays the faults of :data:`FAULTS`, with each method, on a connection that has answered
before and on a fresh one, and returns what was seen. :func:`wrong` judges that by the table.
Run once with the shim and once without it, what differs is the shim's doing: :func:`deviations`
says which of it is not permitted.

To be imported after ``worlds.enter()``, in a world that is green.
"""

import functools
import re
import socket
import ssl
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Optional, Tuple

import urllib3

import stalepool  # installs, unless the environment says no
import stalepool_testing as testing
from errors import links
from pools import counters, pooled_connection
from replay_routes import route_to
from replay_tools import BODIES, after_checkout, have, kind_of, prime, send, wait_for
from stalepool_testing import AnswerStep, CloseAfter, ProcessThenClose, Step
from stalepool_testing.tls import forget_errors

#: of a request's read, in seconds: long enough for a busy machine
READ_S = 20.0
#: where nothing is going to come
SHORT_S = 0.4
#: longer than the shortest wait on silence needs, which is half of it less 2.5 s
SILENCE_S = 6.2
PATIENT = urllib3.Timeout(connect=20, read=20)

METHODS = ("GET", "POST", "PUT")
#: how often the connection has answered before: at the first checkout the check is a full one
ANSWERS = {"GET": 1, "POST": 1, "PUT": 3}
#: more than both kernels' buffers hold, and less than is recorded
LARGE = b"x" * 300_000
#: which hold little of it
SMALL_BUFFERS = {
    "socket_options": [(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)],
    "receive_buffer": 16384,
}

#: layer -> the version of TLS, and the route
LAYERS = {
    "plain": (None, "direct"),
    "TLSv1.2": ("TLSv1.2", "direct"),
    "TLSv1.3": ("TLSv1.3", "direct"),
    "proxy": (None, "proxy"),
    "tunnel": ("TLSv1.3", "proxy"),
    "haproxy": (None, "haproxy"),
    "TLS to haproxy": ("TLSv1.3", "haproxy"),
}

FRONTED = ("haproxy", "TLS to haproxy")

#: when an idle step happens, or that an answer step meets the request
IDLE, AFTER_CHECKOUT, MET = "while idle", "after checkout", "met"


class Fault(NamedTuple):
    """One thing that goes wrong.

    ``step``: what the server does, and ``when``. ``act``: what else is done to (server, pool)
    before the request. ``methods``: with which it can be told what stock does. ``read_s``,
    ``connect_s``: timeouts; sending has the latter. ``is_large``: with a large body.
    ``is_for_ever``: each connection meets it.

    ``error``: as the caller sees it where the request is not saved, None: as in stock.
    ``arrives``: how often the first sending does. ``is_processed``: whether the server acts on it.
    ``saved_as``: how a request is saved that may be sent again; "tried": in vain; "": it is not.
    """

    step: Optional[Step]
    when: str = MET
    act: Optional[Callable[[Any, Any], None]] = None
    methods: Tuple[str, ...] = METHODS
    read_s: float = READ_S
    connect_s: float = READ_S
    is_large: bool = False
    is_for_ever: bool = False
    error: Optional[str] = "connection"
    arrives: int = 1
    is_processed: bool = True
    saved_as: str = ""


@dataclass(frozen=True)
class SendThenEnd(AnswerStep):
    """Reads the request, sends these bytes, and ends the connection."""

    data: bytes
    reset: bool = False
    keeps_connection = False

    def answer(self, exchange):
        exchange.process()
        exchange.send(self.data)
        exchange.end(self.reset)


@dataclass(frozen=True)
class RefuseEarly(AnswerStep):
    """Answers 413 once it has seen the head, and closes with the body unread: an RST."""

    keeps_connection = False

    def answer(self, exchange):
        exchange.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        exchange.channel.flush()
        exchange.channel.reset()


# -- the table -------------------------------------------------------------------------------------


def lose_at_peer(server, pool):
    """The peer has forgotten the connection, and its RST was lost: it is half open."""
    client = pooled_connection(pool).sock
    testing.swallow(client)
    server.perform(testing.ResetAfter(0))
    testing.release(client)


def stop_listening(server, pool):
    server.stop_listening()


#: how an idle connection ends. It is seen before a byte goes out, so every method is saved
ENDS = {
    "FIN": CloseAfter(0),
    "FIN without close_notify": CloseAfter(0, close_notify=False),
    "RST": testing.ResetAfter(0),
    "half-closed": testing.HalfCloseAfter(0),
    "lingering close": testing.LingeringClose(0),
    "408": testing.Surplus(408, seconds=0),
    "answer nobody asked for": testing.Surplus(200, b"poison", seconds=0),
}

GET, WITH_BODY = ("GET",), ("POST", "PUT")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
AGAIN = {"saved_as": "replayed"}
UNPROCESSED = {**AGAIN, "is_processed": False}
TRIED = {"saved_as": "tried"}
UNREAD = {"methods": WITH_BODY, "is_large": True, "is_processed": False}
TIMES_OUT = {"read_s": SHORT_S, "error": "read timeout"}

#: what is sent of an answer before its connection ends; as in stock
CUT_SHORT = {
    "status line cut by an RST": testing.HalfStatusLine(reset=True),
    "headers cut by a FIN": SendThenEnd(_HEAD[:25]),
    "headers cut by an RST": SendThenEnd(_HEAD[:25], reset=True),
    "headers end in a FIN": SendThenEnd(_HEAD[:-2]),
    "body cut by an RST": testing.HalfAnswer(reset=True),
    "body that never began": SendThenEnd(_HEAD),
    "chunk cut by a FIN": SendThenEnd(_CHUNKED + b"5\r\nab"),
    "chunks without an end": SendThenEnd(_CHUNKED + b"2\r\nab\r\n"),
    "no status line": SendThenEnd(b"ouch\r\n\r\n"),
    "an empty line": SendThenEnd(b"\r\n"),
    "HTTP/3": SendThenEnd(b"HTTP/3 200 OK\r\n\r\n"),
    "a status that is none": SendThenEnd(b"HTTP/1.1 ok OK\r\n\r\n"),
    "a header that is too long": SendThenEnd(_HEAD[:-2] + b"X: %s\r\n\r\n" % (b"x" * 70_000)),
    "100 Continue, then a FIN": SendThenEnd(_CONTINUE),
    "100 Continue, then an RST": SendThenEnd(_CONTINUE, reset=True),
}

FAULTS = {
    **{
        "%s %s" % (name, when): Fault(step, when, saved_as="" if when == IDLE else "kept_off")
        for name, step in ENDS.items()
        for when in (IDLE, AFTER_CHECKOUT)
    },
    # what no check sees
    "idle: FIN, and the listener gone": Fault(
        CloseAfter(0), IDLE, stop_listening, methods=("GET", "POST"), error=None, arrives=0
    ),
    # a body is a send of its own: the RST that the head draws may come before or after that
    "idle: half-open": Fault(None, IDLE, lose_at_peer, GET, arrives=0, **UNPROCESSED),
    "idle: black hole": Fault(
        None, IDLE, lambda server, _: server.perform(testing.BlackHole()), arrives=0, **TIMES_OUT
    ),
    # as the request arrives
    "FIN on arrival": Fault(testing.Close(), methods=GET, **UNPROCESSED),
    "RST on arrival": Fault(testing.Reset(), methods=GET, **UNPROCESSED),
    "FIN, acted on": Fault(ProcessThenClose(), **AGAIN),
    "close_notify, acted on": Fault(ProcessThenClose(close_notify=True), **AGAIN),
    "RST, acted on": Fault(testing.ProcessThenReset(), **AGAIN),
    "FIN, and the listener gone": Fault(ProcessThenClose(), act=stop_listening, **TRIED),
    "FIN on every connection": Fault(ProcessThenClose(), is_for_ever=True, **TRIED),
    "RST on every connection": Fault(testing.ProcessThenReset(), is_for_ever=True, **TRIED),
    "413 before the body was read": Fault(RefuseEarly(), error=None, **UNREAD),
    "RST before the body was read": Fault(testing.Reset(), **AGAIN, **UNREAD),
    "a body is not read": Fault(testing.ZeroWindow(60), connect_s=2.0, error=None, **UNREAD),
    # no answer in time
    "read timeout": Fault(testing.Silence(), **TIMES_OUT),
    "read timeout, after the wait on silence": Fault(
        testing.Silence(), methods=GET, read_s=SILENCE_S, error="read timeout"
    ),
    # eventlet 0.33 says it in words of its own over TLS
    "read timeout in the body": Fault(testing.SlowAnswer(60), read_s=SHORT_S, error=None),
    # in the midst of the answer
    "status line cut by a FIN": Fault(testing.HalfStatusLine(), error="half an answer"),
    "body cut by a FIN": Fault(testing.HalfAnswer(), error="half an answer"),
    **{name: Fault(step, error=None) for name, step in CUT_SHORT.items()},
}

#: it answers the others itself, or cannot be told to do them
BEHIND_HAPROXY = (
    *("FIN while idle", "FIN after checkout", "FIN on arrival", "RST on arrival"),
    *("FIN, acted on", "RST, acted on", "FIN on every connection", "RST on every connection"),
    *("read timeout", "body cut by a FIN"),
)
#: stock's own outcome varies: the RST may overtake the answer in the proxy, or come to the client
#: while it sends, or once it waits
TUNNEL_RACES = ("idle: half-open", "413 before the body was read", "RST before the body was read")


class Cell(NamedTuple):
    fault: str
    method: str
    is_reused: bool

    def __str__(self):
        return "%s, %s, %s" % (self.fault, self.method, "reused" if self.is_reused else "fresh")


def cells(layer, is_full):
    """In full, everything. If not, each fault with each method on the plain layer, and with one of
    them on each other layer; on connections that have answered.
    """
    found = []
    for number, (name, fault) in enumerate(FAULTS.items()):
        if not _is_run(name, layer, is_full):
            continue
        methods = fault.methods
        if fault.is_for_ever and layer in FRONTED:
            methods = GET  # it answers 502 itself, and resets if the body is still to come
        if layer != "plain" and not is_full:
            methods = (methods[(number + list(LAYERS).index(layer)) % len(methods)],)
        found += [Cell(name, method, True) for method in methods]
        # a fresh connection has no idle time, and no listener that could have gone
        if is_full and fault.when == MET and fault.act is None and layer not in FRONTED:
            found += [Cell(name, method, False) for method in methods]
    # what takes longest begins first
    return sorted(found, key=lambda cell: -FAULTS[cell.fault].read_s % READ_S)


def _is_run(name, layer, is_full):
    if layer in FRONTED:
        return name in BEHIND_HAPROXY
    # what takes long; the proxy takes the body that the server does not read
    if FAULTS[name].read_s == SILENCE_S or (name, layer) == ("a body is not read", "tunnel"):
        return is_full
    return layer != "tunnel" or name not in TUNNEL_RACES


# -- what was seen ---------------------------------------------------------------------------------

_VARIES = re.compile(r"0x[0-9a-f]+|port=\d+|:\d{4,5}\b|fd=\d+|raddr=[^>]*|laddr=\([^)]*\)")


def normal(thing):
    """The ``repr`` without addresses in memory and port numbers."""
    return _VARIES.sub("#", repr(thing))


def describe_error(error):
    """The class and the arguments of an exception, and of each one that a traceback shows."""
    found = []
    for each in links(error, as_shown=True):
        made_how = "cause" if each.__cause__ is not None else "context"
        name = "%s.%s" % (type(each).__module__, type(each).__qualname__)
        found.append([name, [normal(argument) for argument in each.args], made_how])
    return found


def describe_pool(pool):
    """The state of a pool and its connections, as urllib3 and http.client have it."""
    found = [pool.num_connections, pool.num_requests]
    for conn in pool.pool.queue:
        if conn is not None:
            limit_s = None if conn.sock is None else conn.sock.gettimeout()
            has_response = conn._HTTPConnection__response is not None
            found.append([conn.sock is not None, conn._HTTPConnection__state, has_response])
            found.append([normal(conn.timeout), limit_s, *sorted(vars(conn))])
    return found


def described(seen):
    if seen.error is not None:
        return {"error": describe_error(seen.error), "kind": kind_of(seen.error)}
    return {"status": seen.status, "is own": seen.is_own_answer}


def run_cell(cell, layer, haproxy):
    """One request that meets one fault, and one more behind it."""
    fault, method = FAULTS[cell.fault], cell.method
    version, way = LAYERS[layer]
    tls = None if version is None else testing.TLS(version)
    is_behind = way == "haproxy"
    options = {"maxsize": 2}
    options["timeout"] = urllib3.Timeout(connect=fault.connect_s, read=fault.read_s)
    body, buffer = BODIES.get(method), None
    if fault.is_large:
        body, buffer = LARGE, SMALL_BUFFERS["receive_buffer"]
        options["socket_options"] = SMALL_BUFFERS["socket_options"]
    times = ANSWERS[method] if cell.is_reused else 0
    script = [testing.Respond()] * times
    default = fault.step if fault.is_for_ever else None
    if fault.when == MET and not fault.is_for_ever:
        script.append(fault.step)
    keeps_ms = 200 if is_behind and fault.when != MET else 60_000
    tls_of_server = None if is_behind else tls
    with testing.FaultServer(
        script, tls=tls_of_server, default=default, receive_buffer=buffer
    ) as server, route_to(server, way, tls, haproxy, keeps_ms, **options) as pool:
        prime(pool, times)
        before = saved(pool)  # by an earlier cell, whose server had the port
        if fault.act is not None:
            fault.act(server, pool)
        if fault.when != MET and fault.step is not None:
            # behind haproxy nobody else ends the client's connection: its own timeout does
            ends = wait_for(testing.kernel.POLLIN) if is_behind else have(server, fault.step)
            if fault.when == AFTER_CHECKOUT:
                after_checkout(pool, ends)
            else:  # after the answer was read: http.client would read ahead into it
                ends(pooled_connection(pool))
        outcome = send(server, pool, method, body=body)
        return {
            **{"outcome": described(outcome), "pool": describe_pool(pool)},
            **{"arrivals": outcome.arrivals, "processed": outcome.processed},
            "saved": dict(saved(pool) - before),
            "next": described(send(server, pool, "GET", timeout=PATIENT)),
            "pool then": describe_pool(pool),
        }


def saved(pool):
    """How requests of an origin were saved, by the shim's own count; ``tried`` saved nothing."""
    counted = counters(pool)
    return Counter(counted.get("saved", {}), tried=counted.get("replays", {}).get("failed", 0))


def _keep_errors_apart():
    """Have no green thread meet the TLS error of another: see ``forget_errors``."""

    def clearing(method):
        @functools.wraps(method)
        def call(*arguments, **keywords):
            try:
                return method(*arguments, **keywords)
            except OSError:
                forget_errors()
                raise

        return call

    # eventlet's class is derived from the one that talks to OpenSSL
    native = next(c for c in reversed(ssl.SSLSocket.__mro__) if c.__name__ == "SSLSocket")
    for name in ("read", "write", "send", "do_handshake", "unwrap"):
        setattr(native, name, clearing(getattr(native, name)))


def run(layer, is_full, haproxy):
    """Run the cells of a layer; what was seen, by their names, and how often ours fell back."""
    _keep_errors_apart()
    todo = cells(layer, is_full)
    with ThreadPoolExecutor(24) as executor:
        play = functools.partial(run_cell, layer=layer, haproxy=haproxy)
        seen = dict(zip(map(str, todo), executor.map(play, todo)))
    return seen, stalepool.snapshot()["fallbacks"]


# -- what must come of it --------------------------------------------------------------------------


def expected(cell, layer):
    """What must be seen with the shim at its defaults, as far as the table says."""
    fault = FAULTS[cell.fault]
    if fault.when != MET and fault.step in ENDS.values() and fault.act is None:
        seen = {"said": 200, "arrivals": 1, "processed": 1}
        # on a busy machine haproxy's timeout may have passed before the checkout
        if layer not in FRONTED or fault.when == IDLE:
            seen["saved"] = {fault.saved_as: 1} if fault.saved_as else {}
        return seen
    processed = int(fault.is_processed and fault.arrives)
    seen = {"said": fault.error, "arrivals": fault.arrives, "processed": processed, "saved": {}}
    if cell.method == "POST" or not cell.is_reused or not fault.saved_as:
        return seen
    seen["saved"] = {fault.saved_as: 1}
    if fault.saved_as == "replayed":
        return {**seen, "said": 200, "arrivals": fault.arrives + 1, "processed": processed + 1}
    if fault.is_for_ever:
        seen.update(arrivals=2, processed=2 * processed)
    return seen


def wrong(seen, layer, is_full):
    """What was seen with the shim, and what is expected, where the two differ; by cell."""
    found = {}
    for cell in cells(layer, is_full):
        wanted, outcome = expected(cell, layer), seen[str(cell)]["outcome"]
        got = {**seen[str(cell)], "said": outcome.get("status", outcome.get("kind"))}
        if got["said"] == 200 and not outcome["is own"]:
            got["said"] = "the answer to another request"
        if wanted["said"] is None:
            wanted["said"] = got["said"]
        got = {name: got[name] for name in wanted}
        if got != wanted:
            found[str(cell)] = got, wanted, outcome
    return found


def deviations(stock, shim, layer):
    """What the caller saw of the shim though no request was saved, or there was none to save."""
    assert stock.keys() == shim.keys()
    found = [[cell, "saved by stock"] for cell in stock if stock[cell]["saved"]]
    for cell, seen in shim.items():
        was = stock[cell]
        if layer in FRONTED and cell.startswith(("FIN while idle", "FIN after checkout")):
            continue  # in stock haproxy's short timeout may have passed by then, and in ours not
        if seen["saved"].keys() - {"tried"}:
            is_answered = was["outcome"].get("status") == 200 and was["outcome"]["is own"]
            if "status" not in seen["outcome"] or is_answered:
                found.append([cell, "nothing to save"])
            continue
        for part in ("outcome", "pool", "next", "pool then", "arrivals"):
            was_sent_again = part == "arrivals" and seen["saved"]
            if seen[part] != was[part] and not was_sent_again:
                found.append([cell, part, seen[part], "stock's is", was[part]])
    return found
