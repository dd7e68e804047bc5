"""A peer that says nothing: what lives is waited for, as stock does; what is dead is noticed.

Everything here takes seconds, so that all cases run side by side. The settings are a fifth of the
default ones; what has the default ones is marked as slow. ``test_silence_watch`` has what the
kernel says of a peer, row by row.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import pytest
from urllib3.exceptions import HTTPError

import lanes
import network
import stalepool
import stalepool_testing as testing
from delayed_answers import ReadThenBlackHole
from network import CutServer
from oracle import lose_at_peer
from pools import DEFAULTS, Server, counters, get, pool_for, pooled_connection, shim, stock
from replay_tools import Case, side_by_side, wrong, wrong_in_stock
from stalepool_testing import TLS, AnswerStep, Exchange, FaultServer, Respond, Silence, SlowAnswer
from worlds import beside

#: the wait on silence and the probes in a fifth of their time, and as many probes as ever
SHORT = {
    **DEFAULTS,
    "silence_s": 3,
    "keepalive_idle_s": 1,
    "keepalive_interval_s": 1,
    "keepalive_count": 127,
}
#: a caller's read timeout in whose first half S = 3 s, two more probes, and delays have room
LIMIT_S = 16.0
#: the same for four retransmissions, which take 3 s
NOBODY_LIMIT_S = 10.0
#: stock waits for all of it where the peer is dead, and would wait for more
STOCK_LIMIT_S = 4.0
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


# -- what lives ------------------------------------------------------------------------------------


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
    with answered(CutServer(script, tls=tls), tls=tls) as (server, pool):
        client = pooled_connection(pool).sock

        def take_the_network_away() -> None:
            server.wait_request(2)
            time.sleep(begins_s)
            server.cut(client)
            time.sleep(gap_s)
            server.heal()

        return side_by_side([lambda: ask(server, pool, method), take_the_network_away])[0]


def body_across_a_gap(gap_s: float) -> Outcome:
    """The caller reads the body; the network goes away in its midst."""
    in_halves = SlowAnswer(1.2, body=b"x" * 200_000, pieces=2)
    with answered(CutServer([Respond(200), in_halves])) as (server, pool):
        client = pooled_connection(pool).sock

        def read() -> Any:
            response = pool.request("GET", "/", preload_content=False)
            first = response.read(50_000)
            server.cut(client)
            gap = threading.Timer(gap_s, server.heal)
            gap.start()
            got = len(first) + len(response.read())
            gap.join()
            return "%d bytes" % got

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
        network.swallow_empty(exchange.channel.sock)


def behind_a_filter(method: str, answered_after_s: float) -> Outcome:
    """A slow request, acknowledged; keepalive probes do not reach the peer, data does."""
    script = [RespondThroughFilter(), RespondThroughFilter(answered_after_s)]
    with answered(CutServer(script, swallows_probes=True)) as (server, pool):
        return ask(server, pool, method)


def idle_behind_a_filter(count: int = 3) -> Outcome:
    """POSTs, and before each of them the connection is idle for two probes."""
    filtered = CutServer(default=RespondThroughFilter(), swallows_probes=True)
    with answered(filtered) as (server, pool):

        def post() -> int:
            time.sleep(2.6)
            return int(pool.request("POST", "/", body=b"x").status)

        return outcome(server, lambda: {post() for _ in range(count)}.pop())


def across_the_wire() -> Outcome:
    """The host on the other end of the wire answers no ARP request for a while."""
    neighbour = network.Neighbour()
    with neighbour.inside():
        server = FaultServer([Respond(200), Respond(200, delay_s=6.0)], host=network.FAR)

    def go_away() -> None:
        server.wait_request(2)
        time.sleep(0.3)
        neighbour.leave()
        time.sleep(5.0)
        neighbour.come_back()

    with answered(server) as (_, pool):
        return side_by_side([lambda: ask(server, pool), go_away])[0]


# -- what is dead ----------------------------------------------------------------------------------


def limit_s(with_the_shim: float = LIMIT_S) -> float:
    """The caller's read timeout: less where all of it will be waited for."""
    return with_the_shim if stalepool.is_installed() else STOCK_LIMIT_S


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
    timeout_s: Optional[float] = None,
    server_class: Any = FaultServer,
) -> Outcome:
    """The request is acknowledged, and acted on; then nothing comes, for any probe either."""
    dying = server_class([Respond(200), ReadThenBlackHole()], tls=tls)
    with answered(dying, timeout_s or limit_s(), tls) as (server, pool):
        return ask(server, pool, method)


def unacknowledged_and_dead(
    method: str,
    tls: Optional[TLS] = None,
    timeout_s: Optional[float] = None,
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
    with answered(server, timeout_s or limit_s(), tls) as (server, pool):
        if is_known:
            time.sleep(2.2)
            assert get(pool) == 200
        server.channels[0].flush()  # the answer before is acknowledged, and not sent again
        testing.swallow(server.channels[0].sock)
        if is_gone:
            server.stop_listening()
        time.sleep(idle_s)
        return ask(server, pool, method)


def half_open() -> Outcome:
    """The peer has forgotten the connection; the client hears of that by the answer to a probe."""
    with answered(Server(), limit_s()) as (server, pool):
        lose_at_peer(server, pool)
        time.sleep(1.6)
        return ask(server, pool)


def in_vain(**options: Any) -> Outcome:
    """The same, and no fresh connection gets an answer either."""
    return unacknowledged_and_dead("GET", timeout_s=limit_s(NOBODY_LIMIT_S), **options)


# -- what has to be seen ---------------------------------------------------------------------------

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
    after_s: float = LIMIT_S,
    arrived: Sequence[int] = (0,),
    replays: Optional[Dict[str, int]] = None,
) -> bool:
    is_it = seen.end == "ReadTimeoutError" and after_s <= seen.took_s < after_s + 3
    return is_it and (seen.arrived, seen.replays) == ([*arrived], replays or {})


def waits_for_all_of_its_time(seen: Outcome) -> bool:
    is_it = seen.end == "ReadTimeoutError" and seen.took_s >= STOCK_LIMIT_S
    return is_it and seen.connections == 1


OTHER_SOCKET = {"end": 200, "arrived": [1], "connections": 2, "replays": {}}
takes_another_socket = shows(**OTHER_SOCKET)
#: a probe went unanswered, as the check at the checkout has found, or the request as it went out
is_found_dead = shows(**OTHER_SOCKET, verdicts={"alive": 1, "probe_unanswered": 1})
is_moved = shows(**OTHER_SOCKET, moved={"probe_unanswered": 1})
#: the peer's RST comes in answer to the request
meets_the_reset = shows(end="ProtocolError", arrived=[])
#: three requests, in stock; here the first took a fresh connection, which was silent, too
rode_one_connection = shows(end=200, arrived=[0, 0, 0])
is_learnt_of_in_the_pool = shows(
    end=200, arrived=[1, 1, 1], moved={"probe_unanswered": 1}, probes="swallowed"
)


# -- the cases -------------------------------------------------------------------------------------


def lives(play: Callable[[], Outcome], is_right: Any = is_waited_for) -> Case:
    return Case(play, is_right, is_left_alone)


dies = functools.partial(Case, in_stock=waits_for_all_of_its_time)


def times_out(play: Callable[[], Outcome], **expected: Any) -> Case:
    return dies(play, functools.partial(is_the_callers_timeout, **expected))


CASES: Dict[str, Case] = {
    # over before the answer; and the answer is in it
    "GET, a gap of 3.6 s": lives(lambda: across_a_gap("GET", 3.6, 4.5)),
    "GET, a gap of 6 s": lives(lambda: across_a_gap("GET", 6.0, 4.0)),
    "TLS: GET, a gap of 3.6 s": lives(lambda: across_a_gap("GET", 3.6, 4.5, tls=TLS())),
    "a body, a gap of 5 s": lives(lambda: body_across_a_gap(5.0), is_left_alone),
    "large POST unread": lives(lambda: unread_for(5.0, "POST", LARGE_BODY), is_left_alone),
    "PUT unread": lives(lambda: unread_for(5.0, "PUT", SOME_BODY)),
    "GET behind a filter": lives(lambda: behind_a_filter("GET", 7.0), is_known_to_be_filtered),
    "idle behind a filter": Case(
        idle_behind_a_filter, is_learnt_of_in_the_pool, rode_one_connection
    ),
    "acknowledged GET": dies(lambda: acknowledged_and_dead("GET"), is_sent_again),
    "unacknowledged GET": dies(lambda: unacknowledged_and_dead("GET"), is_sent_on),
    "TLS: unacknowledged GET": dies(lambda: unacknowledged_and_dead("GET", TLS()), is_sent_on),
    "pool: POST": dies(lambda: unacknowledged_and_dead("POST", idle_s=3.2), is_moved),
    "known: pool: POST": dies(
        lambda: unacknowledged_and_dead("POST", idle_s=3.2, is_known=True), is_found_dead
    ),
    "half-open GET, probed": Case(half_open, takes_another_socket, meets_the_reset),
    "deferring server": dies(
        lambda: acknowledged_and_dead("GET", server_class=DeferringServer), is_sent_again
    ),
    "in a hurry": times_out(lambda: acknowledged_and_dead("GET", timeout_s=4), after_s=4),
    "nobody answers": times_out(
        lambda: in_vain(default=Silence()),  # it accepts, and reads the request; that is all
        after_s=NOBODY_LIMIT_S,
        arrived=[1],
        replays={"failed": 1},
    ),
    "nobody listens": times_out(lambda: in_vain(is_gone=True), after_s=NOBODY_LIMIT_S, arrived=[]),
}

#: they differ from those in what the kernel says, or in the method
MORE_CASES: Dict[str, Case] = {
    # over before anything is done about it
    "GET, a gap of 2 s": lives(lambda: across_a_gap("GET", 2.0, 4.0)),
    "POST, a gap of 6 s": lives(lambda: across_a_gap("POST", 6.0, 4.0), is_left_alone),
    "POST behind a filter": lives(lambda: behind_a_filter("POST", 5.0), is_left_alone),
    "acknowledged PUT": dies(lambda: acknowledged_and_dead("PUT"), is_sent_again),
    "acknowledged POST": times_out(lambda: acknowledged_and_dead("POST")),
    "unacknowledged PUT": dies(lambda: unacknowledged_and_dead("PUT"), is_sent_on),
    "unacknowledged POST": times_out(lambda: unacknowledged_and_dead("POST"), arrived=[]),
    "TLS: acknowledged GET": dies(lambda: acknowledged_and_dead("GET", TLS()), is_sent_again),
    # its peer is suspect in the first half of the time, and found dead in the second
    "half in a hurry": times_out(lambda: acknowledged_and_dead("GET", timeout_s=6), after_s=6),
}

#: a few of each kind where the world is another one
GREEN = [
    *("GET, a gap of 3.6 s", "TLS: GET, a gap of 3.6 s", "PUT unread"),
    *("acknowledged GET", "unacknowledged GET", "TLS: acknowledged GET", "known: pool: POST"),
]

lists = pytest.mark.parametrize("cases", lanes.first(1, [CASES, MORE_CASES]), ids=["all", "more"])


@lists
def test_on_threads(cases):
    """Stock waits for what lives as well; for the dead until the caller's read timeout."""
    with shim(**SHORT):
        assert wrong(cases) == {}


@lists
def test_stock_waits(cases):
    assert wrong_in_stock(cases) == {}


CLIENT = """
    import json

    from worlds import enter
    enter("eventlet")
    import test_silence as tests

    print(json.dumps(tests.wrong_in_green()))
"""


def wrong_in_green() -> Dict[str, Outcome]:
    with shim(**SHORT):
        return wrong({name: {**CASES, **MORE_CASES}[name] for name in GREEN})


@pytest.mark.skipif(find_spec("eventlet") is None, reason="needs eventlet")
def test_under_eventlet(run_python):
    assert run_python(CLIENT, env=beside(__file__)) == {}


@pytest.mark.full
@pytest.mark.parametrize("who", [stock, lambda: shim(**SHORT)], ids=["stock", "shim"])
def test_a_neighbour_that_is_away(who):
    """Stock: 200, when the neighbour is back. A user timeout would end it: no route to host."""
    with who():
        (seen,) = side_by_side([across_the_wire])  # in a thread, whose network is another one
    assert is_waited_for(seen), seen


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


# -- the default numbers ---------------------------------------------------------------------------


def is_found_late(seen: Outcome, arrived: List[int]) -> bool:
    return (seen.end, seen.arrived) == (200, arrived) and 15 <= seen.took_s < 20 + 2


def dies_late(play: Callable[[], Outcome], *arrived: int) -> Case:
    return dies(play, functools.partial(is_found_late, arrived=[*arrived]))


DEFAULT_NUMBERS: Dict[str, Case] = {
    "POST, a gap of 44 s": lives(lambda: across_a_gap("POST", 44, 25, begins_s=4.5)),
    "GET, a gap of 25 s": lives(lambda: across_a_gap("GET", 25, 27, begins_s=1)),
    "a body, a gap of 16 s": lives(lambda: body_across_a_gap(16)),
    "large POST unread": lives(lambda: unread_for(25, "POST", LARGE_BODY)),
    "GET behind a filter": lives(lambda: behind_a_filter("GET", 25)),
    "POST behind a filter": lives(lambda: behind_a_filter("POST", 25)),
    # the first fresh socket is for probes alone
    "acknowledged GET": dies_late(lambda: acknowledged_and_dead("GET", timeout_s=PATIENT_S), 0, 2),
    "unacknowledged PUT": dies_late(lambda: unacknowledged_and_dead("PUT", timeout_s=PATIENT_S), 1),
}


@pytest.mark.slow
def test_the_default_numbers():
    """Stock: the first ones end well, and the others after 15 minutes, or the caller's timeout."""
    with shim(**DEFAULTS):
        assert wrong(DEFAULT_NUMBERS) == {}
