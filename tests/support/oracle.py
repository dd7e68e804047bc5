"""What a caller sees of a request that fails, written down so that two processes can be compared.

:func:`main` runs every fault of :data:`FAULTS`, with each method, on a connection that has answered
before and on a fresh one, and prints what was seen as JSON. Run once with the shim and once without
it, what differs is the shim's doing: :func:`deviations` says which of it is not permitted.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

#: of a request's read, in seconds: long enough for a busy machine
READ_S = 20.0
#: where nothing is going to come
SHORT_S = 0.4
#: longer than the shortest wait on silence needs, which is half of it less 2.5 s
SILENCE_S = 6.2

BODIES = {"GET": None, "POST": b"pay 10", "PUT": b"put"}
#: more than both kernels' buffers hold, and less than is recorded
LARGE = b"x" * 900_000
SMALL_BUFFERS = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)]


class Fault(NamedTuple):
    """One thing that goes wrong.

    ``steps``: what the server does after the priming answer. ``act``: what is done to
    (server, pool) after the priming, before the request. ``read_s``, ``connect_s``: timeouts;
    sending has the latter.
    ``is_idle``: it meets the idle connection, not the request. ``is_large``: with a large body.
    ``is_for_ever``: each connection meets it.
    """

    steps: Callable[[], List[Any]]
    act: Optional[Callable[[Any, Any], None]] = None
    methods: Tuple[str, ...] = ("GET", "POST", "PUT")
    read_s: float = READ_S
    connect_s: float = READ_S
    is_idle: bool = False
    is_large: bool = False
    is_for_ever: bool = False


def _steps() -> Any:
    """Steps of this module's own; defined late, since they are made green with the process."""
    from stalepool_testing import AnswerStep, Exchange

    @dataclass(frozen=True)
    class SendThenEnd(AnswerStep):
        """Reads the request, sends these bytes, and ends the connection."""

        data: bytes
        reset: bool = False
        keeps_connection = False

        def answer(self, exchange: Exchange) -> None:
            exchange.process()
            exchange.send(self.data)
            exchange.end(self.reset)

    @dataclass(frozen=True)
    class RefuseEarly(AnswerStep):
        """Answers 413 once it has seen the head, and closes with the body unread: an RST."""

        keeps_connection = False

        def answer(self, exchange: Exchange) -> None:
            exchange.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            exchange.channel.flush()
            exchange.channel.reset()

    return SendThenEnd, RefuseEarly


def send_then_end(data: bytes, reset: bool = False) -> Any:
    return _steps()[0](data, reset)


def refuse_early() -> Any:
    return _steps()[1]()


def _idle(name: str, *arguments: Any, **keywords: Any) -> Fault:
    """A fault of ``stalepool_testing`` that meets the idle connection, and has arrived there."""

    def act(server: Any, pool: Any) -> None:
        import stalepool_testing
        from stalepool_testing import kernel

        # after the answer was read: http.client would read ahead into what is sent at once
        server.perform(getattr(stalepool_testing, name)(*arguments, **keywords))
        kernel.wait_readable(newest_socket(pool))

    return Fault(list, act, is_idle=True)


def _met(name: str, *arguments: Any, **keywords: Any) -> Fault:
    """A fault of ``stalepool_testing`` that meets the request."""
    options = {key: keywords.pop(key) for key in ("methods", "read_s") if key in keywords}

    def steps() -> List[Any]:
        import stalepool_testing

        return [getattr(stalepool_testing, name)(*arguments, **keywords)]

    return Fault(steps, **options)


def _sent(data: bytes, reset: bool = False) -> Fault:
    return Fault(lambda: [send_then_end(data, reset)])


# -- what is done to a primed connection -----------------------------------------------------------


def newest_socket(pool: Any) -> Any:
    """The socket of the connection that the next request takes."""
    return next(conn.sock for conn in reversed(pool.pool.queue) if conn is not None)


def swallow_requests(server: Any, pool: Any) -> None:
    """From now on nothing that the client sends arrives."""
    from stalepool_testing import BlackHole

    server.perform(BlackHole())


def lose_at_peer(server: Any, pool: Any) -> None:
    """The peer has forgotten the connection, and its RST was lost: it is half open."""
    from stalepool_testing import ResetAfter, release, swallow

    client = newest_socket(pool)
    swallow(client)
    server.perform(ResetAfter(0))
    release(client)


def stop_listening(server: Any, pool: Any) -> None:
    server.stop_listening()


def close_idle_and_stop_listening(server: Any, pool: Any) -> None:
    from stalepool_testing import CloseAfter, kernel

    stop_listening(server, pool)
    server.perform(CloseAfter(0))
    kernel.wait_readable(newest_socket(pool))


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

FAULTS: Dict[str, Fault] = {
    # while idle
    "idle: FIN": _idle("CloseAfter", 0),
    "idle: FIN without close_notify": _idle("CloseAfter", 0, close_notify=False),
    "idle: RST": _idle("ResetAfter", 0),
    "idle: half-closed": _idle("HalfCloseAfter", 0),
    "idle: lingering close": _idle("LingeringClose", 0),
    "idle: 408": _idle("Surplus", 408, seconds=0),
    "idle: answer nobody asked for": _idle("Surplus", 200, b"poison", seconds=0),
    "idle: FIN, and the listener gone": Fault(
        list, close_idle_and_stop_listening, is_idle=True, methods=("GET", "POST")
    ),
    # a body is a send of its own: the RST that the head draws may come before or after that
    "idle: half-open": Fault(list, lose_at_peer, is_idle=True, methods=("GET",)),
    "idle: black hole": Fault(list, swallow_requests, read_s=SHORT_S, is_idle=True),
    # as the request arrives
    "FIN on arrival": _met("Close", methods=("GET",)),
    "RST on arrival": _met("Reset", methods=("GET",)),
    "FIN, acted on": _met("ProcessThenClose"),
    "close_notify, acted on": _met("ProcessThenClose", close_notify=True),
    "RST, acted on": _met("ProcessThenReset"),
    "FIN, and the listener gone": Fault(lambda: _met("ProcessThenClose").steps(), stop_listening),
    "FIN on every connection": Fault(lambda: _met("ProcessThenClose").steps(), is_for_ever=True),
    "RST on every connection": Fault(lambda: _met("ProcessThenReset").steps(), is_for_ever=True),
    "413 before the body was read": Fault(
        lambda: [refuse_early()], methods=("POST", "PUT"), is_large=True
    ),
    "RST before the body was read": Fault(
        lambda: _met("Reset").steps(), methods=("POST", "PUT"), is_large=True
    ),
    "a body is not read": Fault(
        lambda: _met("ZeroWindow", 60).steps(),
        methods=("POST", "PUT"),
        connect_s=2.0,
        is_large=True,
    ),
    # no answer in time
    "read timeout": _met("Silence", read_s=SHORT_S),
    "read timeout, after the wait on silence": _met("Silence", read_s=SILENCE_S, methods=("GET",)),
    "read timeout in the body": _met("SlowAnswer", 60, read_s=SHORT_S),
    # in the midst of the answer
    "status line cut by a FIN": _met("HalfStatusLine"),
    "status line cut by an RST": _met("HalfStatusLine", reset=True),
    "headers cut by a FIN": _sent(_HEAD[:25]),
    "headers cut by an RST": _sent(_HEAD[:25], reset=True),
    "headers end in a FIN": _sent(_HEAD[:-2]),
    "body cut by a FIN": _met("HalfAnswer"),
    "body cut by an RST": _met("HalfAnswer", reset=True),
    "body that never began": _sent(_HEAD),
    "chunk cut by a FIN": _sent(_CHUNKED + b"5\r\nab"),
    "chunks without an end": _sent(_CHUNKED + b"2\r\nab\r\n"),
    "no status line": _sent(b"ouch\r\n\r\n"),
    "an empty line": _sent(b"\r\n"),
    "HTTP/3": _sent(b"HTTP/3 200 OK\r\n\r\n"),
    "a status that is none": _sent(b"HTTP/1.1 ok OK\r\n\r\n"),
    "a header that is too long": _sent(_HEAD[:-2] + b"X: " + b"x" * 70_000 + b"\r\n\r\n"),
    "100 Continue, then a FIN": _sent(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 Continue, then an RST": _sent(b"HTTP/1.1 100 Continue\r\n\r\n", reset=True),
}

#: stock's own outcome varies: the proxy may be told of the RST before it has passed on the answer
RACES_IN_A_TUNNEL = {"idle: half-open", "413 before the body was read"}

# -- what was seen ---------------------------------------------------------------------------------

_VARIES = re.compile(r"0x[0-9a-f]+|port=\d+|:\d{4,5}\b|fd=\d+|raddr=[^>]*|laddr=\([^)]*\)")


def normal(thing: object) -> str:
    """The ``repr`` without addresses in memory and port numbers."""
    return _VARIES.sub("#", repr(thing))


def describe_error(error: Optional[BaseException]) -> List[Any]:
    """The class and the arguments of an exception, and of each one that a traceback shows."""
    found: List[Any] = []
    seen: List[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        made_how = "cause" if error.__cause__ is not None else "context"
        name = "%s.%s" % (type(error).__module__, type(error).__qualname__)
        found.append([name, [normal(argument) for argument in error.args], made_how])
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def describe_connection(conn: Any) -> Any:
    """The state of a connection, as urllib3 and http.client have it."""
    if conn is None:
        return None
    return {
        "open": conn.sock is not None,
        "state": conn._HTTPConnection__state,
        "has response": conn._HTTPConnection__response is not None,
        "timeout": normal(conn.timeout),
        "socket's timeout": None if conn.sock is None else conn.sock.gettimeout(),
        "attributes": sorted(vars(conn)),
    }


def describe_pool(pool: Any) -> Dict[str, Any]:
    return {
        "queue": [describe_connection(conn) for conn in pool.pool.queue],
        "num_connections": pool.num_connections,
        "num_requests": pool.num_requests,
    }


def _attempt(pool: Any, method: str, path: str, **options: Any) -> Dict[str, Any]:
    try:
        response = pool.request(method, path, headers={"X-Request-Id": path}, **options)
    except Exception as error:
        return {"error": describe_error(error)}
    is_own = response.headers.get("X-Request-Id") == path
    return {"status": response.status, "is own": is_own, "data": repr(response.data)}


@contextlib.contextmanager
def pool_to(server: Any, tls: Any, is_tunnelled: bool, **options: Any) -> Iterator[Any]:
    """A pool for the server, directly or through a CONNECT tunnel."""
    import urllib3

    from stalepool_testing import ConnectProxy

    make: Any = urllib3.HTTPConnectionPool
    if tls is not None:
        make, options["ca_certs"] = urllib3.HTTPSConnectionPool, tls.ca_path
    if not is_tunnelled:
        with make(server.host, server.port, **options) as pool:
            yield pool
        return
    with ConnectProxy() as proxy, urllib3.ProxyManager(proxy.url, **options) as client:
        yield client.connection_from_url(server.url)


def run_cell(
    fault: Fault, method: str, is_reused: bool, tls: Any, is_tunnelled: bool
) -> Dict[str, Any]:
    """One request that meets one fault, and one more behind it."""
    import urllib3

    from reused import Server
    from stalepool_testing import Respond

    options: Dict[str, Any] = {"maxsize": 2, "retries": False}
    options["timeout"] = urllib3.Timeout(connect=fault.connect_s, read=fault.read_s)
    patient = urllib3.Timeout(connect=20, read=20)
    began, buffer = time.monotonic(), None
    if fault.is_large:
        options["socket_options"], buffer = SMALL_BUFFERS, 16384
    steps = fault.steps()
    script: Any = [Respond(), *steps] if is_reused else steps
    if fault.is_for_ever:

        def script(request: Any) -> Any:
            return steps if request.path == "/wanted" else Respond()

    with Server(script, tls=tls, receive_buffer=buffer) as server:
        with pool_to(server, tls, is_tunnelled, **options) as pool:
            if is_reused:
                assert pool.request("GET", "/prime", timeout=patient).status == 200
            if fault.act is not None:
                fault.act(server, pool)
            body = LARGE if fault.is_large else BODIES[method]
            seen = {"outcome": _attempt(pool, method, "/wanted", body=body)}
            seen["pool"] = describe_pool(pool)
            entries = [entry for entry in server.journal if entry.path == "/wanted"]
            seen["arrivals"] = len(entries)
            seen["saved"] = saved(server.port)
            seen["next"] = _attempt(pool, "GET", "/next", timeout=patient)
            seen["pool then"] = describe_pool(pool)
            seen["seconds"] = time.monotonic() - began
    return seen


def saved(port: int) -> Dict[str, int]:
    """What the shim did for an origin: counters that are not 0; ``tried`` saved nothing."""
    import stalepool

    for name, counters in stalepool.snapshot()["origins"].items():
        if name.endswith(":%d" % port):
            counted = {
                "discards": counters["discards"],
                "replays": counters["replays"].get("ok", 0),
                "moved": sum(counters["moved"].values()) - counters["moved"].get("failed", 0),
                "reconnects": counters["reconnects"].get("ok", 0),
                "tried": counters["replays"].get("failed", 0),
            }
            return {name: count for name, count in counted.items() if count}
    return {}


def cells(left_out: Set[str]) -> Dict[str, Tuple[Fault, str, bool]]:
    """Everything to be run, by name."""
    found = {}
    for name, fault in ((n, f) for n, f in FAULTS.items() if n not in left_out):
        for method in fault.methods:
            # a fresh connection has no idle time, and no listener that could have gone
            for is_reused in (True,) if fault.act is not None else (True, False):
                key = "%s, %s, %s" % (name, method, "reused" if is_reused else "fresh")
                found[key] = (fault, method, is_reused)
    return found


def _keep_errors_apart() -> None:
    """Have no green thread meet the TLS error of another: see ``forget_errors``.

    Client and server do it alike, with the shim and without.
    """
    import ssl

    from stalepool_testing.tls import forget_errors

    def clearing(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any, **keywords: Any) -> Any:
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


def main(world: str, layer: str) -> None:
    """Run all cells and print what was seen.

    :param world: ``threads``, or what :func:`worlds.enter` takes.
    :param layer: ``plain``, a version of TLS, or ``tunnel``: TLS 1.3 behind a CONNECT.
    """
    if world != "threads":
        import worlds

        worlds.enter(world)
    import urllib3  # noqa: F401

    import stalepool  # noqa: F401  # installs, unless the environment says no
    from stalepool_testing import TLS

    is_tunnelled = layer == "tunnel"
    tls = None if layer == "plain" else TLS("TLSv1.3" if is_tunnelled else layer)
    _keep_errors_apart()
    todo = cells(RACES_IN_A_TUNNEL if is_tunnelled else set())
    todo = dict(sorted(todo.items(), key=lambda item: -item[1][0].read_s % READ_S))
    with ThreadPoolExecutor(24) as executor:
        run = functools.partial(run_cell, tls=tls, is_tunnelled=is_tunnelled)
        seen = dict(zip(todo, executor.map(lambda cell: run(*cell), todo.values())))
    print(json.dumps(seen))


# -- what is permitted -----------------------------------------------------------------------------


def deviations(stock: Dict[str, Any], shim: Dict[str, Any]) -> List[str]:
    """What the caller saw of the shim though no request was saved, a line each.

    An answer is permitted in the place of stock's error, where the shim says that it saved the
    request. In the place of anything else it is not.
    """
    assert stock.keys() == shim.keys()
    found = []
    for cell, seen in shim.items():
        was = stock[cell]
        is_saved = _is_an_answer(seen["outcome"]) and set(seen["saved"]) - {"tried"}
        if is_saved and not _is_an_answer(was["outcome"]):
            continue
        was_sent_again = "tried" in seen["saved"] or "replays" in seen["saved"]
        for part in ("outcome", "pool", "next", "pool then", "arrivals"):
            if part != "arrivals" or not was_sent_again:
                found += ["%s: %s%s" % (cell, part, d) for d in _differences(was[part], seen[part])]
    return found


def _is_an_answer(outcome: Dict[str, Any]) -> bool:
    return outcome.get("status") == 200 and bool(outcome["is own"])


def _differences(was: Any, seen: Any) -> List[str]:
    """Where two pieces of what was seen differ, as "[key][key]: this, stock's is that"."""
    if isinstance(was, dict) and isinstance(seen, dict) and was.keys() == seen.keys():
        return ["[%s]%s" % (k, d) for k in was for d in _differences(was[k], seen[k])]
    if isinstance(was, list) and isinstance(seen, list) and len(was) == len(seen):
        return ["[%d]%s" % (i, d) for i in range(len(was)) for d in _differences(was[i], seen[i])]
    return [] if was == seen else [": %s, stock's is %s" % (seen, was)]
