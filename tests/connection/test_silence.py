"""A peer that says nothing: what lives is waited for, as stock does; what is dead is noticed.

Everything here takes seconds, so that all cases run side by side. The settings are a fifth of the
default ones; what has the default ones is marked as slow. ``test_silence_watch`` has what the
kernel says of a peer, row by row.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import socket
import struct
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import pytest
from urllib3.exceptions import HTTPError

import stalepool_testing as testing
from delayed_answers import ReadThenBlackHole
from pools import DEFAULTS, Server, counters, get, pool_for, pooled_connection, shim
from replay_tools import side_by_side, wrong
from stalepool.sockets.layers import raw_of
from stalepool_testing import TLS, AnswerStep, Exchange, FaultServer, Respond, Silence, SlowAnswer
from worlds import beside

#: the wait on silence and the probes in a fifth of their time, and as many probes as ever
SHORT = {**DEFAULTS, "silence_s": 3, "keepalive_idle_s": 1, "keepalive_interval_s": 1}
#: a caller's read timeout in whose first half S = 3 s, two more probes, and delays have room
LIMIT_S = 16.0
#: the same for four retransmissions, which take 3 s
NOBODY_LIMIT_S = 10.0
#: nobody's limit: what lives answers before
PATIENT_S = 60.0


class Outcome(NamedTuple):
    """How a request ended: plain data, from whatever process.

    ``end``: the status, or the error's name. ``arrived``: the numbers of the connections on which
    the request came; it was acted on each time.
    """

    end: Any
    took_s: float
    arrived: List[int]
    connections: int
    replays: Dict[str, int]
    moved: Dict[str, int]
    verdicts: Dict[str, int]
    gone: Dict[str, int]
    probes: str


def outcome(server: FaultServer, send: Callable[[], Any]) -> Outcome:
    before, began = len(server.journal), time.monotonic()
    try:
        end: Any = send()
    except (HTTPError, OSError) as error:
        end = type(error).__name__
    took_s = time.monotonic() - began
    arrived = [entry.connection for entry in list(server.journal)[before:] if entry.processed]
    counted = counters(server)
    found = {name: counted.get(name, {}) for name in ("replays", "moved", "verdicts", "gone")}
    probes = counted.get("knowledge", {}).get("keepalive_probes", "")
    return Outcome(end, took_s, arrived, len(server.journal.connections), probes=probes, **found)


def ask(server: FaultServer, pool: Any, method: str = "GET") -> Outcome:
    body = None if method == "GET" else b"x"
    return outcome(server, lambda: pool.request(method, "/", body=body).status)


@contextlib.contextmanager
def answered(
    server: Any, timeout_s: float = PATIENT_S, tls: Optional[TLS] = None
) -> Iterator[Tuple[Any, Any]]:
    """A server, and a pool with a connection to it that has answered."""
    with server, pool_for(server, tls, timeout=timeout_s) as pool:
        assert get(pool) == 200
        yield server, pool


#: classic BPF on a TCP segment, from its header on: (code, jump if true, jump if false, operand)
_DROP_EMPTY: Tuple[Tuple[int, int, int, int], ...] = (
    (0x30, 0, 0, 13),  # A = the flags
    (0x45, 7, 0, 0x07),  # FIN, SYN or RST: keep
    (0x30, 0, 0, 12),  # A = header length in words, in the upper half of a byte
    (0x54, 0, 0, 0xF0),
    (0x74, 0, 0, 2),  # A = header length in bytes
    (0x07, 0, 0, 0),  # X = A
    (0x80, 0, 0, 0),  # A = length of the segment
    (0x1D, 0, 1, 0),  # A == X, nothing but a header: drop
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def swallow_empty(sock: socket.socket) -> None:
    """From now on no segment without data arrives here: no keepalive probe, no mere ACK."""
    program = b"".join(struct.pack("HBBI", *line) for line in _DROP_EMPTY)
    buffer = ctypes.create_string_buffer(program, len(program))
    attached = struct.pack("HP", len(_DROP_EMPTY), ctypes.addressof(buffer))
    testing.blackhole._set(sock, testing.blackhole._SO_ATTACH_FILTER, attached)


class FilteredServer(FaultServer):
    """A fault server behind a firewall that lets data through, and no keepalive probe."""

    def _serve_one(self, channel: Any) -> None:
        swallow_empty(channel.sock)
        super()._serve_one(channel)


def without_network(server: FaultServer, client: Any, seconds: float) -> None:
    """Nothing gets through between a server and a client's socket for so long, either way."""
    with server.add(testing.Blackout()):
        testing.swallow(raw_of(client))
        time.sleep(seconds)
    testing.release(raw_of(client))


def across_a_gap(
    method: str,
    gap_s: float,
    answered_after_s: float,
    *,
    begins_s: float = 0.3,
    tls: Optional[TLS] = None,
) -> Outcome:
    """A request on a reused connection is acknowledged; then the network goes away for a while."""
    script = [Respond(200), Respond(200, delay_s=answered_after_s)]
    with answered(FaultServer(script, tls=tls), tls=tls) as (server, pool):
        client = pooled_connection(pool).sock

        def take_the_network_away() -> None:
            server.wait_request(2)
            time.sleep(begins_s)
            without_network(server, client, gap_s)

        return side_by_side([lambda: ask(server, pool, method), take_the_network_away])[0]


def body_across_a_gap(gap_s: float) -> Outcome:
    """The caller reads the body; the network goes away in its midst."""
    in_halves = SlowAnswer(1.2, body=b"x" * 200_000, pieces=2)
    with answered(FaultServer([Respond(200), in_halves])) as (server, pool):
        client = pooled_connection(pool).sock

        def read() -> str:
            response = pool.request("GET", "/", preload_content=False)
            began = len(response.read(50_000))
            gap = functools.partial(without_network, server, client, gap_s)
            rest, _ = side_by_side([response.read, gap])
            return "%d bytes" % (began + len(rest))

        return outcome(server, read)


#: less than is recorded for a replay, more than a small receive buffer
SOME_BODY = b"x" * 700_000
LARGE_BODY = b"x" * 4_000_000


def unread_for(seconds: float, method: str, body: bytes) -> Outcome:
    """The peer reads only after a while; what is sent until then fills its buffer."""
    with answered(FaultServer([Respond(200), testing.ZeroWindow(seconds)])) as (server, pool):
        return outcome(server, lambda: pool.request(method, "/", body=body).status)


@dataclass(frozen=True)
class RespondThroughFilter(AnswerStep):
    """An answer whose acknowledgement the filter lets through: it is no probe."""

    delay_s: float = 0.0

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        exchange.channel.pause(self.delay_s)
        testing.release(exchange.channel.sock)
        exchange.respond(200)
        exchange.channel.flush()
        swallow_empty(exchange.channel.sock)


def behind_a_filter(answered_after_s: float) -> Outcome:
    """A slow request, acknowledged; keepalive probes do not reach the peer, data does."""
    script = [RespondThroughFilter(), RespondThroughFilter(answered_after_s)]
    with answered(FilteredServer(script)) as (server, pool):
        return ask(server, pool)


def idle_behind_a_filter(count: int = 3) -> Outcome:
    """POSTs, and before each of them the connection is idle for two probes."""
    filtered = FilteredServer(default=RespondThroughFilter())
    with answered(filtered) as (server, pool):

        def post() -> int:
            time.sleep(2.6)
            return int(pool.request("POST", "/", body=b"x").status)

        return outcome(server, lambda: {post() for _ in range(count)}.pop())


class DeferringServer(FaultServer):
    """Accepts a connection when its first data are there, as Apache httpd does by default.

    On a connection that has sent no data a probe does harm: the first data after it are accepted
    after half a minute (measured, Linux 6.18).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)


def acknowledged_and_dead(
    method: str,
    tls: Optional[TLS] = None,
    timeout_s: float = LIMIT_S,
    server_class: Any = FaultServer,
) -> Outcome:
    """The request is acknowledged, and acted on; then nothing comes, for any probe either."""
    dying = server_class([Respond(200), ReadThenBlackHole()], tls=tls)
    with answered(dying, timeout_s, tls) as (server, pool):
        return ask(server, pool, method)


def unacknowledged_and_dead(
    method: str,
    tls: Optional[TLS] = None,
    timeout_s: float = LIMIT_S,
    default: Any = None,
    idle_s: float = 0.0,
    is_known: bool = False,
    is_gone: bool = False,
) -> Outcome:
    """The connection drops silently before the request, which nobody acknowledges.

    :param default: what a fresh connection meets.
    :param idle_s: the connection is idle for so long then, and probes go unanswered.
    :param is_known: the origin has answered a probe before.
    :param is_gone: the listener has gone as well: a fresh connection is refused.
    """
    server = Server([Respond(200)] * (1 + is_known), tls=tls, default=default)
    with answered(server, timeout_s, tls) as (server, pool):
        if is_known:
            time.sleep(2.2)
            assert get(pool) == 200
        server.channels[0].flush()  # the answer before is acknowledged, and not sent again
        testing.swallow(server.channels[0].sock)
        if is_gone:
            server.stop_listening()
        time.sleep(idle_s)
        return ask(server, pool, method)


def in_vain(**options: Any) -> Outcome:
    """The same, and no fresh connection gets an answer either."""
    return unacknowledged_and_dead("GET", timeout_s=NOBODY_LIMIT_S, **options)


#: the wait on silence, two more probes; a machine that has other things to do
NOTICED_S = 3 + 2.2 + 3


def shows(**expected: Any) -> Callable[[Outcome], bool]:
    return lambda seen: all(getattr(seen, name) == expected[name] for name in expected)


def is_waited_for(seen: Outcome, **more: Any) -> bool:
    """It was answered, acted on once, and on the connection that it was on."""
    is_it = seen.end in (200, "200000 bytes") and seen.arrived == [0] and not seen.replays
    return is_it and shows(**more)(seen)


#: not even a connection was opened beside it
is_left_alone = functools.partial(is_waited_for, connections=1)
is_known_to_be_filtered = functools.partial(is_waited_for, probes="swallowed")


def is_sent_again(seen: Outcome, before: Sequence[int] = (0,)) -> bool:
    """:param before: the connections on which the request had come before its peer died."""
    return (
        seen.end == 200
        # on the second connection, or on the third where the second was opened to be probed
        and seen.arrived in ([*before, 1], [*before, 2])
        and (seen.replays, seen.gone) == ({"ok": 1}, {"silent_in_request": 1})
        and seen.connections == seen.arrived[-1] + 1
        and seen.took_s < NOTICED_S
    )


is_sent_on = functools.partial(is_sent_again, before=())


def is_the_callers_timeout(
    seen: Outcome,
    after_s: float,
    arrived: Sequence[int] = (0,),
    replays: Optional[Dict[str, int]] = None,
) -> bool:
    is_it = seen.end == "ReadTimeoutError" and after_s <= seen.took_s < after_s + 3
    return is_it and (seen.arrived, seen.replays) == ([*arrived], replays or {})


OTHER_SOCKET = {"end": 200, "arrived": [1], "connections": 2, "replays": {}}
#: a probe went unanswered, as the check at the checkout has found, or the request as it went out
is_found_dead = shows(**OTHER_SOCKET, verdicts={"alive": 1, "probe_unanswered": 1})
is_moved = shows(**OTHER_SOCKET, moved={"probe_unanswered": 1})
#: in stock they ride one connection; here the first took a fresh one, which was silent, too
is_learnt_of_in_the_pool = shows(
    end=200, arrived=[1, 1, 1], moved={"probe_unanswered": 1}, probes="swallowed"
)


def times_out(play: Callable[[], Outcome], **expected: Any) -> Any:
    return play, functools.partial(is_the_callers_timeout, **expected)


#: what is played, and what judges that which was seen
CASES: Dict[str, Tuple[Callable[[], Outcome], Callable[[Outcome], Any]]] = {
    # over before the answer; and the answer is in it
    "GET, a gap of 3.6 s": (lambda: across_a_gap("GET", 3.6, 4.5), is_waited_for),
    "GET, a gap of 6 s": (lambda: across_a_gap("GET", 6.0, 4.0), is_waited_for),
    "POST, a gap of 6 s": (lambda: across_a_gap("POST", 6.0, 4.0), is_left_alone),
    "TLS: GET, a gap": (lambda: across_a_gap("GET", 3.6, 4.5, tls=TLS()), is_waited_for),
    "a body, a gap of 5 s": (lambda: body_across_a_gap(5.0), is_left_alone),
    "large POST unread": (lambda: unread_for(5.0, "POST", LARGE_BODY), is_left_alone),
    "PUT unread": (lambda: unread_for(5.0, "PUT", SOME_BODY), is_waited_for),
    "GET behind a filter": (lambda: behind_a_filter(7.0), is_known_to_be_filtered),
    "idle behind a filter": (idle_behind_a_filter, is_learnt_of_in_the_pool),
    "acknowledged GET": (lambda: acknowledged_and_dead("GET"), is_sent_again),
    "TLS: acknowledged GET": (lambda: acknowledged_and_dead("GET", TLS()), is_sent_again),
    "unacknowledged GET": (lambda: unacknowledged_and_dead("GET"), is_sent_on),
    "TLS: unacknowledged GET": (lambda: unacknowledged_and_dead("GET", TLS()), is_sent_on),
    "pool: POST": (lambda: unacknowledged_and_dead("POST", idle_s=3.2), is_moved),
    "known: pool: POST": (
        lambda: unacknowledged_and_dead("POST", idle_s=3.2, is_known=True),
        is_found_dead,
    ),
    "deferring server": (
        lambda: acknowledged_and_dead("GET", server_class=DeferringServer),
        is_sent_again,
    ),
    "in a hurry": times_out(lambda: acknowledged_and_dead("GET", timeout_s=4), after_s=4),
    "acknowledged POST": times_out(
        lambda: acknowledged_and_dead("POST", timeout_s=NOBODY_LIMIT_S), after_s=NOBODY_LIMIT_S
    ),
    "nobody answers": times_out(
        lambda: in_vain(default=Silence()),  # it accepts, and reads the request; that is all
        after_s=NOBODY_LIMIT_S,
        arrived=[1],
        replays={"failed": 1},
    ),
    "nobody listens": times_out(lambda: in_vain(is_gone=True), after_s=NOBODY_LIMIT_S, arrived=[]),
}

#: a few of each kind where the world is another one
GREEN = [
    *("GET, a gap of 3.6 s", "TLS: GET, a gap", "PUT unread"),
    *("acknowledged GET", "unacknowledged GET", "TLS: acknowledged GET", "known: pool: POST"),
]


def test_on_threads():
    """Stock waits for what lives as well; for the dead until the caller's read timeout."""
    with shim(**SHORT):
        assert wrong(CASES) == {}


CLIENT = """
    import json

    from worlds import enter
    enter("eventlet")
    import test_silence as tests

    print(json.dumps(tests.wrong_in_green()))
"""


def wrong_in_green() -> Dict[str, Outcome]:
    with shim(**SHORT):
        return wrong({name: CASES[name] for name in GREEN})


@pytest.mark.skipif(find_spec("eventlet") is None, reason="needs eventlet")
def test_under_eventlet(run_python):
    assert run_python(CLIENT, env=beside(__file__)) == {}


def test_a_move_that_failed_is_not_tried_again_at_once(monkeypatch):
    """Probes are swallowed, and the name server goes down. Stock: no request waits for that."""
    stock_getaddrinfo, asked = socket.getaddrinfo, []

    def getaddrinfo(host, *args, **options):
        asked.append(host)
        if len(asked) == 1:
            return stock_getaddrinfo(host, *args, **options)
        time.sleep(0.5)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with shim(**SHORT):
        seen = idle_behind_a_filter(2)
    assert (seen.arrived, seen.moved, len(asked)) == ([0, 0], {"failed": 1}, 2)


def is_found_late(seen: Outcome, arrived: List[int]) -> bool:
    # the first wait ends 0.3 s before a round number
    return (seen.end, seen.arrived) == (200, arrived) and 14.7 <= seen.took_s < 20 + 2


DEFAULT_NUMBERS = {
    "POST, a gap of 44 s": (lambda: across_a_gap("POST", 44, 25, begins_s=4.5), is_waited_for),
    "GET, a gap of 25 s": (lambda: across_a_gap("GET", 25, 27, begins_s=1), is_waited_for),
    "GET behind a filter": (lambda: behind_a_filter(25), is_waited_for),
    # the first fresh socket is for probes alone
    "acknowledged GET": (
        lambda: acknowledged_and_dead("GET", timeout_s=PATIENT_S),
        functools.partial(is_found_late, arrived=[0, 2]),
    ),
    "unacknowledged PUT": (
        lambda: unacknowledged_and_dead("PUT", timeout_s=PATIENT_S),
        functools.partial(is_found_late, arrived=[1]),
    ),
}


@pytest.mark.slow
def test_the_default_numbers():
    """Stock: the first ones end well, and the others after 15 minutes, or the caller's timeout."""
    with shim(**DEFAULTS):
        assert wrong(DEFAULT_NUMBERS) == {}
