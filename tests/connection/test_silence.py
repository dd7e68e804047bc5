"""A peer that says nothing: what lives is waited for, as stock does; what is dead is noticed.

Everything here takes seconds, so that it takes them side by side: each client is a process, each of
its cases a thread of that. The settings are a fifth of the default ones; what has the default ones
is marked as slow.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import pytest
from urllib3.exceptions import HTTPError

import network
import stalepool
from delayed_answers import ReadThenBlackHole
from network import CutServer
from pools import counters, get, pool_for, pooled_connection, shim, stock
from reused import Server
from stalepool_testing import (
    TLS,
    AnswerStep,
    Exchange,
    FaultServer,
    Respond,
    Silence,
    ZeroWindow,
    release,
    swallow,
)
from worlds import beside

#: the wait on silence and the probes in a fifth of their time, and as many probes as ever
SHORT = {
    "replay": "idempotent",
    "presend_check": True,
    "nonidempotent_max_idle_s": "auto",
    "silence_s": 3,
    "keepalive_idle_s": 1,
    "keepalive_interval_s": 1,
    "keepalive_count": 127,
}
#: the default of everything
FULL = {name: SHORT[name] for name in ("replay", "presend_check", "nonidempotent_max_idle_s")}

#: a caller's read timeout in whose first half S = 3 s, two more probes, and delays have room
LIMIT_S = 16.0
#: enough to see that a POST is not sent again, when a GET has been
POST_LIMIT_S = 8.0
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
    return Outcome(
        end,
        took_s,
        arrived,
        len(server.journal.connections),
        counted.get("replays", {}),
        counted.get("moved", {}),
        counted.get("verdicts", {}),
        counted.get("gone", {}),
        counted.get("knowledge", {}).get("keepalive_probes", ""),
    )


def ask(server: FaultServer, pool: Any, method: str = "GET") -> Outcome:
    body = None if method == "GET" else b"x"
    return outcome(server, lambda: pool.request(method, "/", body=body).status)


def side_by_side(cases: Dict[str, Callable[[], Outcome]]) -> Dict[str, Outcome]:
    """All at once, in threads; green ones in a green process."""
    outcomes: Dict[str, Any] = {}

    def run(name: str) -> None:
        outcomes[name] = cases[name]()

    threads = [threading.Thread(target=run, args=(name,)) for name in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: outcomes[name] for name in cases}


# -- what lives: a gap in the network --------------------------------------------------------------


def across_a_gap(
    method: str,
    gap_s: float,
    answered_after_s: float,
    *,
    begins_s: float = 0.3,
    with_listener: bool = True,
    tls: Optional[TLS] = None,
) -> Outcome:
    """A request on a reused connection is acknowledged; then the network goes away for a while."""
    late = Respond(200, delay_s=answered_after_s)
    with CutServer([Respond(200), late], tls=tls) as server:
        with pool_for(server, tls, timeout=PATIENT_S) as pool:
            assert get(pool) == 200
            client = pooled_connection(pool).sock

            def take_the_network_away() -> None:
                server.wait_request(2)
                time.sleep(begins_s)
                server.cut(client, with_listener)
                time.sleep(gap_s)
                server.heal()

            gap = threading.Thread(target=take_the_network_away)
            gap.start()
            seen = ask(server, pool, method)
            gap.join()
            return seen


@dataclass(frozen=True)
class HalfTheBody(AnswerStep):
    """The first half of the body, a pause, and the other half."""

    pause_s: float

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        answer = exchange.answer_bytes(200, b"x" * 200_000)
        exchange.send(answer[:100_000])
        exchange.channel.pause(self.pause_s)
        exchange.send_last(answer[100_000:])


def body_across_a_gap(gap_s: float, pause_s: float = 0.6) -> Outcome:
    """The caller reads the body; the network goes away in its midst."""
    with CutServer([Respond(200), HalfTheBody(pause_s)]) as server:
        with pool_for(server, timeout=PATIENT_S) as pool:
            assert get(pool) == 200
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


# -- what lives: a peer that does not read ---------------------------------------------------------

#: less than is recorded for a replay, more than a small receive buffer
SOME_BODY = b"x" * 700_000
LARGE_BODY = b"x" * 4_000_000


def unread_for(seconds: float, method: str, body: bytes) -> Outcome:
    """The peer reads only after a while; what is sent until then fills its buffer."""
    with FaultServer([Respond(200), ZeroWindow(seconds)]) as server:
        with pool_for(server, timeout=PATIENT_S) as pool:
            assert get(pool) == 200
            return outcome(server, lambda: pool.request(method, "/", body=body).status)


# -- what lives: a firewall that swallows probes ---------------------------------------------------


@dataclass(frozen=True)
class RespondThroughFilter(AnswerStep):
    """An answer whose acknowledgement the filter lets through: it is no probe."""

    delay_s: float = 0.0

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        exchange.channel.pause(self.delay_s)
        release(exchange.channel.sock)
        exchange.respond(200)
        exchange.channel.flush()
        network.swallow_empty(exchange.channel.sock)


def behind_a_filter(method: str, answered_after_s: float, known: bool = False) -> Outcome:
    """A slow request, acknowledged; keepalive probes do not reach the peer, data does.

    :param known: one slow GET before has shown that they do not.
    """
    late = [RespondThroughFilter(answered_after_s)]
    script = [RespondThroughFilter(), *late * (2 if known else 1)]
    with CutServer(script, swallows_probes=True) as server:
        with pool_for(server, timeout=PATIENT_S) as pool:
            assert get(pool) == 200
            if known:
                assert get(pool) == 200
            return ask(server, pool, method)


def idle_behind_a_filter() -> Outcome:
    """Three POSTs, and before each of them the connection is idle for two probes."""
    with CutServer(default=RespondThroughFilter(), swallows_probes=True) as server:
        with pool_for(server, timeout=PATIENT_S) as pool:
            assert get(pool) == 200

            def post() -> int:
                time.sleep(2.6)
                return int(pool.request("POST", "/", body=b"x").status)

            return outcome(server, lambda: {post() for _ in range(3)}.pop())


LIVES: Dict[str, Callable[[], Outcome]] = {
    # over before anything is done about it; over before the answer; and the answer is in it
    "GET, a gap of 2 s": lambda: across_a_gap("GET", 2.0, 4.0),
    "GET, a gap of 3.6 s": lambda: across_a_gap("GET", 3.6, 4.5),
    "GET, a gap of 6 s": lambda: across_a_gap("GET", 6.0, 4.0),
    "TLS: GET, a gap of 3.6 s": lambda: across_a_gap("GET", 3.6, 4.5, tls=TLS()),
    "POST, a gap of 6 s": lambda: across_a_gap("POST", 6.0, 4.0),
    "POST, its flow cut for 3.6 s": lambda: across_a_gap("POST", 3.6, 4.5, with_listener=False),
    "a body, a gap of 5 s": lambda: body_across_a_gap(5.0),
    "large POST unread": lambda: unread_for(5.0, "POST", LARGE_BODY),
    "PUT unread": lambda: unread_for(5.0, "PUT", SOME_BODY),
    "GET behind a filter": lambda: behind_a_filter("GET", 7.0),
    "POST behind a filter": lambda: behind_a_filter("POST", 5.0),
    "known filter": lambda: behind_a_filter("GET", 6.0, known=True),
}


def across_the_wire(server: FaultServer, method: str) -> Outcome:
    with pool_for(server, timeout=PATIENT_S) as pool:
        assert get(pool) == 200
        return ask(server, pool, method)


def neighbours(away_s: float, answered_after_s: float) -> Dict[str, Outcome]:
    """The host on the other end of the wire answers no ARP request for a while."""
    neighbour = network.Neighbour()
    servers = {}
    with neighbour.inside():
        for method in ("GET", "POST"):
            script = [Respond(200), Respond(200, delay_s=answered_after_s)]
            servers[method] = FaultServer(script, host=network.FAR)

    def go_away() -> None:
        for server in servers.values():
            server.wait_request(2)
        time.sleep(0.3)
        neighbour.leave()
        time.sleep(away_s)
        neighbour.come_back()

    away = threading.Thread(target=go_away)
    away.start()
    seen = side_by_side(
        {
            method: lambda method=method: across_the_wire(servers[method], method)
            for method in servers
        }
    )
    away.join()
    for server in servers.values():
        server.close()
    return seen


# -- what is dead ----------------------------------------------------------------------------------


def limit_s(method: str = "GET") -> float:
    """The caller's read timeout: less where all of it will be waited for."""
    if not stalepool.is_installed():
        return STOCK_LIMIT_S
    return POST_LIMIT_S if method == "POST" else LIMIT_S


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
    idle_s: float = 0.0,
    server_class: Any = FaultServer,
) -> Outcome:
    """The request is acknowledged, and acted on; then nothing comes, for any probe either.

    :param idle_s: idle for so long before: probes are answered meanwhile, and that is known.
    """
    with server_class([Respond(200), Respond(200), ReadThenBlackHole()], tls=tls) as server:
        with pool_for(server, tls, timeout=timeout_s or limit_s(method)) as pool:
            assert get(pool) == 200
            time.sleep(idle_s)
            assert get(pool) == 200
            return ask(server, pool, method)


def fall_silent(server: FaultServer) -> None:
    """Its connection drops silently; the answer before is acknowledged, and not sent again."""
    server.channels[0].flush()
    swallow(server.channels[0].sock)


def unacknowledged_and_dead(
    method: str, tls: Optional[TLS] = None, timeout_s: Optional[float] = None
) -> Outcome:
    """The connection drops silently before the request, which nobody acknowledges."""
    limit = timeout_s or limit_s(method)
    with FaultServer(tls=tls) as server, pool_for(server, tls, timeout=limit) as pool:
        assert get(pool) == 200
        fall_silent(server)
        return ask(server, pool, method)


def silent_in_the_pool(is_known: bool) -> Outcome:
    """The connection drops silently while it is idle, and probes go unanswered.

    :param is_known: the origin has answered a probe before.
    """
    with FaultServer() as server, pool_for(server, timeout=limit_s()) as pool:
        assert get(pool) == 200
        if is_known:
            time.sleep(2.2)
            assert get(pool) == 200
        fall_silent(server)
        time.sleep(3.2)
        return ask(server, pool, "POST")


def half_open(idle_s: float) -> Outcome:
    """The peer has forgotten the connection, and the client has not heard of that.

    :param idle_s: long enough for a probe, which is answered by an RST, or 0.
    """
    with FaultServer() as server, pool_for(server, timeout=limit_s()) as pool:
        assert get(pool) == 200
        channel, client = server.channels[0], pooled_connection(pool).sock
        server_ended = threading.Event()

        def forget() -> None:
            network.lose_at_peer(client, channel)
            server_ended.set()

        channel.tell(forget)
        assert server_ended.wait(10)
        time.sleep(idle_s)
        return ask(server, pool)


def nobody_answers() -> Outcome:
    """The fresh connection is accepted, and the request read; that is all."""
    with FaultServer([Respond(200), ReadThenBlackHole()], default=Silence()) as server:
        with pool_for(server, timeout=limit_s()) as pool:
            assert get(pool) == 200
            return ask(server, pool)


def nobody_listens() -> Outcome:
    """The listener has gone as well: a fresh connection is refused."""
    with Server() as server, pool_for(server, timeout=limit_s()) as pool:
        assert get(pool) == 200
        fall_silent(server)
        server.stop_listening()
        return ask(server, pool)


DIES: Dict[str, Callable[[], Outcome]] = {
    **{
        "acknowledged %s" % method: lambda method=method: acknowledged_and_dead(method)
        for method in ("GET", "PUT", "POST")
    },
    **{
        "unacknowledged %s" % method: lambda method=method: unacknowledged_and_dead(method)
        for method in ("GET", "PUT", "POST")
    },
    "known: acknowledged GET": lambda: acknowledged_and_dead("GET", idle_s=2.2),
    "TLS: acknowledged GET": lambda: acknowledged_and_dead("GET", TLS()),
    "TLS: unacknowledged GET": lambda: unacknowledged_and_dead("GET", TLS()),
    "pool: POST": lambda: silent_in_the_pool(is_known=False),
    "known: pool: POST": lambda: silent_in_the_pool(is_known=True),
    "half-open GET": lambda: half_open(0),
    "half-open GET, probed": lambda: half_open(1.6),
    "deferring server": lambda: acknowledged_and_dead("GET", server_class=DeferringServer),
    "in a hurry": lambda: acknowledged_and_dead("GET", timeout_s=4),
    "known: half in a hurry": lambda: acknowledged_and_dead("GET", timeout_s=9, idle_s=2.2),
    "nobody answers": nobody_answers,
    "nobody listens": nobody_listens,
}

#: a few of each kind where the world is another one
GREEN = [
    *("POST, a gap of 6 s", "GET, a gap of 3.6 s", "TLS: GET, a gap of 3.6 s"),
    *("PUT unread", "GET behind a filter"),
    *("acknowledged GET", "unacknowledged GET", "TLS: acknowledged GET", "known: pool: POST"),
]

# -- the clients -----------------------------------------------------------------------------------

WHO = {"stock": stock, "shim": lambda: shim(**SHORT)}

#: the work of a client -> what does it
WORK: Dict[str, Callable[[], Dict[str, Outcome]]] = {
    "lives": lambda: side_by_side(LIVES),
    "dies": lambda: side_by_side({**DIES, "idle behind a filter": idle_behind_a_filter}),
    "green": lambda: side_by_side({name: {**LIVES, **DIES}[name] for name in GREEN}),
    "neighbours": lambda: neighbours(away_s=5.0, answered_after_s=6.0),
}

CLIENT = """
    import sys

    from worlds import enter
    world, who, what = sys.argv[1:]
    if world != "threads":
        enter(world)
    import test_silence as tests

    tests.client(who, what)
"""

CLIENTS = [
    *(("threads", who, what) for what in ("lives", "dies", "neighbours") for who in WHO),
    ("eventlet", "shim", "green"),
]
if find_spec("eventlet") is None:
    CLIENTS.pop()  # its failure would have each test run all of them again
needs_eventlet = pytest.mark.skipif(find_spec("eventlet") is None, reason="needs eventlet")


def client(who: str, what: str) -> None:
    """Do one client's work, and print what was seen; in a process of its own."""
    TLS()  # its certificates are made once, by whoever is first
    with WHO[who]():
        seen = WORK[what]()
    json.dump({name: tuple(each) for name, each in seen.items()}, sys.stdout)


@pytest.fixture
def clients(run_python, tmp_path_factory):
    """(world, who, what) -> its outcomes. All of one ``who`` run together, for all of xdist."""
    kept = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        kept = kept.parent  # the workers' own

    def run(*words: str) -> Any:
        return run_python(CLIENT, *words, env=beside(__file__))

    def outcomes(world: str, who: str, what: str) -> Dict[str, Outcome]:
        with open(str(kept / ("silence-" + who)), "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            found = json.loads(file.read() or "{}")
            if not found:
                alike = [each for each in CLIENTS if each[1] == who]
                with ThreadPoolExecutor(len(alike)) as executor:
                    seen = executor.map(lambda each: run(*each), alike)
                    found.update(zip(map(" ".join, alike), seen))
                json.dump(found, file)
        seen_by = found[" ".join((world, who, what))]
        return {name: Outcome(*each) for name, each in seen_by.items()}

    return outcomes


# -- what lives ------------------------------------------------------------------------------------


def is_as_stock(name: str, seen: Outcome) -> None:
    """Assert that a request was answered, acted on once, and on the connection that it was on."""
    if "body" in name:
        assert seen.end == "200000 bytes", (name, seen)
    else:
        assert seen.end == 200, (name, seen)
    assert seen.arrived == [0], (name, seen)
    assert not seen.replays, (name, seen)


@pytest.mark.parametrize("name", LIVES)
@pytest.mark.parametrize("who", WHO)
def test_what_lives_is_waited_for(clients, who, name):
    """Stock: each of these ends well, on one connection, and is acted on once."""
    seen = clients("threads", who, "lives")[name]
    is_as_stock(name, seen)
    if who == "stock" or not name.startswith(("GET", "PUT", "TLS: GET", "known")):
        assert seen.connections == 1, seen  # not even one that was opened beside it


@needs_eventlet
@pytest.mark.parametrize("name", [name for name in GREEN if name in LIVES])
def test_what_lives_is_waited_for_under_eventlet(clients, name):
    """Stock: as on threads."""
    is_as_stock(name, clients("eventlet", "shim", "green")[name])


@pytest.mark.parametrize("name", ["GET behind a filter", "known filter"])
def test_a_filter_is_learnt_of(clients, name):
    """Stock has no probes; here it is remembered that they tell nothing."""
    assert clients("threads", "shim", "lives")[name].probes == "swallowed"


def test_a_known_filter_is_not_tried_again(clients):
    """Stock opens no second connection. Here it is one, to see whether that one is answered."""
    assert clients("threads", "shim", "lives")["known filter"].connections == 2


def test_a_filter_is_learnt_of_in_the_pool(clients):
    """Stock: one connection. Here the first POST takes a fresh one, which is silent, too."""
    seen = clients("threads", "stock", "dies")["idle behind a filter"]
    assert (seen.end, seen.arrived) == (200, [0, 0, 0]), seen
    seen = clients("threads", "shim", "dies")["idle behind a filter"]
    assert (seen.end, seen.arrived) == (200, [1, 1, 1]), seen
    assert (seen.moved, seen.probes) == ({"probe_unanswered": 1}, "swallowed"), seen


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("who", WHO)
def test_a_neighbour_that_is_away(clients, who, method):
    """Stock: 200, when the neighbour is back. A user timeout would end it: no route to host."""
    is_as_stock(method, clients("threads", who, "neighbours")[method])


# -- what is dead ----------------------------------------------------------------------------------

#: the wait on silence, two more probes; a machine that has other things to do
NOTICED_S = 3 + 2.2 + 3


@pytest.mark.parametrize("name", [name for name in DIES if "half-open" not in name])
def test_stock_waits_for_all_of_its_time(clients, name):
    """Stock: the caller's read timeout, whatever the method."""
    seen = clients("threads", "stock", "dies")[name]
    assert seen.end == "ReadTimeoutError", seen
    assert seen.took_s >= STOCK_LIMIT_S, seen
    assert seen.connections == 1, seen


@pytest.mark.parametrize("name", [name for name in DIES if "half-open" in name])
def test_stock_meets_the_reset(clients, name):
    """Stock: the peer's RST in answer to the request."""
    seen = clients("threads", "stock", "dies")[name]
    assert (seen.end, seen.arrived) == ("ProtocolError", []), seen


def check_sent_again(name: str, seen: Outcome) -> None:
    on_the_first = [0] if " acknowledged" in " " + name else []
    assert seen.end == 200, seen
    # on the second connection, or on the third where the second was opened to be probed
    assert seen.arrived in ([*on_the_first, 1], [*on_the_first, 2]), seen
    assert (seen.replays, seen.gone) == ({"ok": 1}, {"silent_in_request": 1}), seen
    assert seen.connections == seen.arrived[-1] + 1, seen
    assert seen.took_s < NOTICED_S, seen


def is_sent_again(name: str) -> bool:
    return "acknowledged" in name and "POST" not in name


@pytest.mark.parametrize("name", [name for name in DIES if is_sent_again(name)])
def test_a_dead_peer_is_noticed(clients, name):
    """Stock: the caller's read timeout."""
    check_sent_again(name, clients("threads", "shim", "dies")[name])


def test_a_dead_peer_with_deferred_accept(clients):
    """Stock: the caller's read timeout. Here data follow the connect at once, before any probe."""
    seen = clients("threads", "shim", "dies")["deferring server"]
    assert (seen.end, len(seen.arrived), seen.replays) == (200, 2, {"ok": 1}), seen
    assert seen.took_s < NOTICED_S, seen


@needs_eventlet
@pytest.mark.parametrize("name", [name for name in GREEN if is_sent_again(name)])
def test_a_dead_peer_is_noticed_under_eventlet(clients, name):
    """Stock: the caller's read timeout."""
    check_sent_again(name, clients("eventlet", "shim", "green")[name])


@pytest.mark.parametrize("name", [name for name in DIES if "pool:" in name])
def test_probes_without_an_answer_in_the_pool(clients, name):
    """Stock has no probes: the caller's read timeout. Here any request takes another socket."""
    seen = clients("threads", "shim", "dies")[name]
    assert (seen.end, seen.arrived, seen.connections) == (200, [1], 2), seen
    assert not seen.replays, seen
    if name.startswith("known"):
        assert seen.verdicts.get("probe_unanswered") == 1, seen
    else:
        assert seen.moved == {"probe_unanswered": 1}, seen


@needs_eventlet
def test_probes_without_an_answer_in_the_pool_under_eventlet(clients):
    """Stock has no probes: the caller's read timeout."""
    seen = clients("eventlet", "shim", "green")["known: pool: POST"]
    assert (seen.end, seen.arrived, seen.connections) == (200, [1], 2), seen


@pytest.mark.parametrize("name", [name for name in DIES if "half-open" in name])
def test_a_half_open_peer(clients, name):
    """Stock: the error. Here a probe has met the RST before, or the request is sent again."""
    seen = clients("threads", "shim", "dies")[name]
    assert (seen.end, seen.arrived, seen.connections) == (200, [1], 2), seen
    assert seen.replays == ({} if "probed" in name else {"ok": 1}), seen


@pytest.mark.parametrize("name", ["acknowledged POST", "unacknowledged POST"])
def test_a_post_is_not_sent_again(clients, name):
    """Stock: the caller's read timeout, and so it is here."""
    seen = clients("threads", "shim", "dies")[name]
    assert seen.end == "ReadTimeoutError", seen
    assert seen.took_s >= POST_LIMIT_S, seen
    assert (seen.arrived, seen.connections) == ([0] if name[0] == "a" else [], 1), seen


@pytest.mark.parametrize(("name", "limit_s"), [("in a hurry", 4), ("known: half in a hurry", 9)])
def test_a_caller_in_a_hurry(clients, name, limit_s):
    """Stock: the caller's read timeout; nothing is sent again in the second half of it.

    The second one's peer is suspect in the first half, and found dead in the second.
    """
    seen = clients("threads", "shim", "dies")[name]
    assert (seen.end, seen.arrived) == ("ReadTimeoutError", [0]), seen
    assert limit_s <= seen.took_s < limit_s + 2, seen


@pytest.mark.parametrize("name", ["nobody answers", "nobody listens"])
def test_nobody_else_answers_either(clients, name):
    """Stock: the caller's read timeout. Here, too, and both tries together take no longer."""
    seen = clients("threads", "shim", "dies")[name]
    assert seen.end == "ReadTimeoutError", seen
    assert LIMIT_S <= seen.took_s < LIMIT_S + 3, seen
    expected = ([0, 2], {"failed": 1}) if name == "nobody answers" else ([], {})
    assert (seen.arrived, seen.replays) == expected, seen


# -- the default numbers ---------------------------------------------------------------------------

LIVES_IN_FULL: Dict[str, Callable[[], Outcome]] = {
    "POST, a gap of 44 s": lambda: across_a_gap("POST", 44, 25, begins_s=4.5),
    "GET, a gap of 25 s": lambda: across_a_gap("GET", 25, 27, begins_s=1),
    "a body, a gap of 16 s": lambda: body_across_a_gap(16),
    "large POST unread": lambda: unread_for(25, "POST", LARGE_BODY),
    "GET behind a filter": lambda: behind_a_filter("GET", 25),
    "POST behind a filter": lambda: behind_a_filter("POST", 25),
}
DIES_IN_FULL: Dict[str, Callable[[], Outcome]] = {
    "acknowledged GET": lambda: acknowledged_and_dead("GET", timeout_s=PATIENT_S),
    "unacknowledged PUT": lambda: unacknowledged_and_dead("PUT", timeout_s=PATIENT_S),
    "known: acknowledged GET": lambda: acknowledged_and_dead("GET", None, PATIENT_S, 11),
}


@pytest.mark.slow
def test_the_default_numbers():
    """Stock: the first ones end well, and the others after 15 minutes, or the caller's timeout."""
    with shim(**FULL):
        seen = side_by_side({**LIVES_IN_FULL, **{"dead: " + n: c for n, c in DIES_IN_FULL.items()}})
    for name in LIVES_IN_FULL:
        is_as_stock(name, seen[name])
    for name in DIES_IN_FULL:
        dead = seen["dead: " + name]
        on_the_first = [] if name.startswith("un") else [0]
        # of an origin not known to answer probes, the first fresh socket is for probes alone
        fresh = 2 if name == "acknowledged GET" else 1
        assert (dead.end, dead.arrived) == (200, [*on_the_first, fresh]), (name, dead)
        assert 15 <= dead.took_s < 20 + 2, (name, dead)
