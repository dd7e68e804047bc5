"""A silent peer is judged by TCP_INFO, after a first wait in which nothing is done."""

import contextlib
import socket
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import pytest
from urllib3.connection import HTTPConnection

import stalepool
from breaks import breaks, stopped_clocks
from delayed_answers import LOST, SILENT
from pools import UnknownSocket, counters, get, let_pass, pooled_connection, serving, shim
from replay_tools import ECHO, outcome, prime, reused, send
from stalepool import fallback, runtime
from stalepool.connection import replay, silence
from stalepool.connection.silence import CONFIRM_S, LOOK_AGAIN_S, LOOK_EVERY_S, Watch
from stalepool.connection.state import CHECKED, Request, find
from stalepool.settings import Settings
from stalepool.sockets import keepalive, tcp_info
from stalepool.sockets.layers import layers_of
from stalepool_testing import Close, Respond

WAIT_S = 3.0

#: is it dead, and is a second socket open
DEAD, OPENED, MORE_TIME = (True, True), (False, True), (False, False)


#: the last sign of life
LONG_AGO = {"last_ack_recv_ms": 60000, "last_data_recv_ms": 60000}


class Case(NamedTuple):
    """``said``: what the kernel says, each time, beside :data:`SILENT`; None: nothing."""

    said: List[Optional[Dict[str, Any]]]
    seen: Tuple[bool, bool]
    pause_s: Optional[float] = LOOK_EVERY_S
    are_swallowed: bool = False
    limit_s: Optional[float] = None
    method: str = "GET"
    in_flight_s: float = 4


def probes(*unanswered, **more):
    return [{"probes": number, **more} for number in unanswered]


CASES = {
    "not acknowledged": Case([LOST, LOST], DEAD),
    "retransmitted three times": Case([{**LOST, "retransmits": 3}], MORE_TIME),
    "the path heals meanwhile": Case([LOST, {}], MORE_TIME),
    "the kernel says nothing any more": Case([LOST, None], MORE_TIME, None),
    "data that do not fit the peer's window": Case([{**LOST, "snd_wnd": 0}], MORE_TIME),
    "data that are not sent yet": Case([{**LOST, "notsent": 1}], MORE_TIME),
    "a kernel before 5.4": Case([{**LOST, "is_whole": False}], MORE_TIME, None),
    "no TCP_INFO": Case([None], MORE_TIME, None),
    "a sign of life a second ago": Case([{**LOST, "last_ack_recv_ms": 1000}], MORE_TIME, 2.02),
    "no probe yet": Case([{}], MORE_TIME),
    # where nobody probes, for example
    "a long silence": Case([LONG_AGO], MORE_TIME, 3.0, in_flight_s=60),
    "a long one of a suspect": Case([{**LONG_AGO, "probes": 1}] * 4, OPENED, in_flight_s=60),
    "first probe": Case(probes(1, 1), OPENED, CONFIRM_S),
    # said for the second time once the fresh one stands; its own probes are answered from then on
    "no probe since then": Case(probes(3, 3, 3, 3), OPENED),
    "the first probe since then": Case(probes(2, 2, 3), OPENED, LOOK_AGAIN_S),
    # a socket that was probed is not used itself; while another is opened, the answer may come
    "it stays unanswered": Case(probes(2, 2, 3, 3, 3), DEAD),
    "its answer is late": Case([*probes(2, 2, 3, 3), {"last_ack_recv_ms": 100}], MORE_TIME, 2.92),
    "its answer comes": Case([*probes(2, 2, 3), {"last_ack_recv_ms": 100}], MORE_TIME, 2.92),
    "two in all stay unanswered": Case(probes(1, 1, 2, 2), OPENED),
    "a round trip of a second": Case(probes(3, 3, 4, rtt_us=1000000), OPENED, 2.0),
    "probes are swallowed": Case([{"probes": 9}], MORE_TIME, None, are_swallowed=True),
    "swallowed, and not acknowledged": Case([LOST, LOST], DEAD, are_swallowed=True),
    "half of the caller's time is over": Case([LOST], MORE_TIME, None, limit_s=8.0),
    "a method that is not replayed": Case([LOST], MORE_TIME, None, method="POST"),
}


@contextlib.contextmanager
def watched(case, pool):
    """The watch of a request that has been in flight for some seconds."""
    assert get(pool) == 200
    conn = pooled_connection(pool)
    state = find(conn.sock)
    state.checked()
    head = b"%s / HTTP/1.1\r\n\r\n" % case.method.encode()
    request = Request(state, conn, head, runtime.current)
    request.sent_at, request.wait_s = monotonic() - case.in_flight_s, WAIT_S
    request.timeout_s = case.limit_s
    if case.are_swallowed:
        state.origin.knowledge.note_probes_swallowed()
    watch = Watch(request)
    with contextlib.closing(watch.replay):
        yield watch


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_the_kernel_says(case):
    infos = [None if said is None else SILENT._replace(**said) for said in case.said]
    is_dead, ask = False, tcp_info.ask
    with shim(replay="idempotent"), serving() as (_, pool), watched(case, pool) as watch:
        old = watch.sock
        others = [replay.Replay(watch.request) for _ in range(1, replay.MOST_BESIDE)]
        replay._beside.update(others)  # as many as there may be

        def say(layers):
            return infos.pop(0) if layers is not None and layers.raw is old else ask(layers)

        with breaks("TCP_INFO", by=say):
            for _ in case.said:
                is_dead = watch.finds_the_peer_dead() if infos else is_dead
                if infos and watch.pause_s == CONFIRM_S:
                    sleep(CONFIRM_S)
            seen = (is_dead, watch.replay.sock is not None)
            assert (seen, watch.pause_s) == (case.seen, pytest.approx(case.pause_s, abs=0.1))


@pytest.mark.parametrize("has_answered_one", [False, True])
def test_only_the_fresh_socket_is_probed_more_often(has_answered_one):
    """The application's own count may be small: then a second apart would end a living one."""
    with shim(replay="idempotent"), serving() as (_, pool):
        with watched(CASES["first probe"], pool) as watch:
            old, watch.knowledge.answers_probes = layers_of(watch.sock), has_answered_one
            ask = tcp_info.ask
            before = keepalive.read(old)
            said = [SILENT._replace(probes=number) for number in (3, 3, 4, 4, 4)]
            with breaks("TCP_INFO", by=lambda layers: said.pop(0) if said else ask(layers)):
                assert not watch.finds_the_peer_dead()
                probed = keepalive.read(layers_of(watch.replay.sock))
                assert (keepalive.read(old), probed.interval_s) == (before, 1)
                # the fresh one's is unanswered, too: probes are swallowed, or the path is away
                assert not watch.finds_the_peer_dead() and not watch.finds_the_peer_dead()
            assert (watch.replay.sock, watch.pause_s) == (None, None)
            assert watch.knowledge.swallows_probes is not has_answered_one
            assert keepalive.read(old).interval_s == (before.interval_s if has_answered_one else 75)


def test_nothing_is_done_after_an_uninstall():
    with shim(replay="idempotent"), serving() as (_, pool), watched(Case([], MORE_TIME), pool) as w:
        stalepool.uninstall()
        assert (w.finds_the_peer_dead(), w.replay.sock, w.pause_s) == (False, None, None)


KEYED = b"put / http/1.1\r\nidempotency-key: 1"
#: seconds; what is not as usual, and in the settings
FIRST_WAITS = {
    "no limit of the caller's": (10.0, {}, {}),
    "a limit that leaves room": (10.0, {"timeout_s": 60.0}, {}),
    "half of a limit, less a probe": (6.5, {"timeout_s": 20.0}, {}),
    "a limit that leaves none": (None, {"timeout_s": 7.9}, {}),
    "a setting of its own": (3.0, {}, {"silence_s": 3}),
    "switched off": (None, {}, {"silence_s": "off"}),
    "audit": (None, {}, {"mode": "audit"}),
    "no replay": (None, {}, {"replay": "off"}),
    "a connection that has not answered": (None, {"is_reused": False}, {}),
    "a second try": (None, {"is_replayed": True}, {}),
    # as of libfaketime: no wait would be seen to be over
    "a clock that stands still": (None, {"sent_at": 7.0}, {}),
    "POST": (None, {"method": b"POST"}, {}),
    "PUT": (None, {"method": b"PUT"}, {}),
    "PUT with a key": (10.0, {"method": b"PUT", "head": KEYED}, {}),
}


@pytest.mark.parametrize("wait_s, facts, settings", FIRST_WAITS.values(), ids=FIRST_WAITS)
def test_the_first_wait(wait_s, facts, settings):
    settings = Settings(**{"silence_s": 10, "replay": "idempotent", **settings})
    state, conn = SimpleNamespace(phase=CHECKED, answers=1), HTTPConnection("a")
    request = Request(state, conn, b"GET / HTTP/1.1\r\n\r\n", settings)
    vars(request).update(facts)
    wanted = None if wait_s is None else wait_s - silence.OFF_ROUND_S
    assert silence.first_wait_s(request, first_byte_at=7.0) == pytest.approx(wanted)


def test_a_clock_that_has_stopped_ends_no_request():
    """As libfaketime's does at any time: no wait would be seen to be over."""
    with shim(replay="idempotent", silence_s=1), reused(Respond(delay_s=1)) as (_, pool):
        with stopped_clocks():
            assert outcome(pool, "GET") == 200


class Told(UnknownSocket):
    """Made like urllib3's around pyOpenSSL; writes down the timeouts that are set on it."""

    makefile = socket.socket.makefile
    _io_refs = 0
    limits = ()

    def settimeout(self, value):
        self.limits += (value,)
        self._sock.settimeout(value)


@pytest.mark.parametrize("kind", [UnknownSocket, Told])
def test_a_socket_of_unknown_kind_waits_as_in_stock(kind):
    """Its peer cannot be asked, and its timeout may be an error of its own."""
    settings = {"replay": "idempotent", "silence_s": 7, "nonidempotent_max_idle_s": 1}
    steps = [ECHO] * 3 + [Close()]
    with shim(falls_back=True, **settings), reused(*steps, timeout=None) as (server, pool):
        sock = pooled_connection(pool).sock = kind(pooled_connection(pool).sock)
        for method in ("GET", "POST", "GET"):  # the last one on a connection that has answered
            assert send(server, pool, method)[:2] == (200, True)
        assert kind is UnknownSocket or not any(sock.limits)
        assert send(server, pool, "GET").arrivals == (1 if kind is UnknownSocket else 2)
        prime(pool)
        pooled_connection(pool).sock = kind(pooled_connection(pool).sock)
        assert get(pool) == 200
        let_pass(pool, 1)
        assert send(server, pool, "POST")[:2] == (200, True)
        assert counters(server)["moved"] == {"idle_setting": 1}
        assert set(fallback.counts()) == {"unknown_connection"}
