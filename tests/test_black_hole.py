"""Requests that fall into a black hole: nothing comes back any more, not even an RST.

What waits for the kernel to give up waits side by side: in threads of one client, and several
clients at once, each in a process of its own.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import pytest
from urllib3.exceptions import HTTPError

from gates import Gate
from pools import counters, get, pool_for, pooled_connection, shim, stock
from stalepool.settings import Settings
from stalepool.testing import (
    TLS,
    AnswerStep,
    BlackHole,
    Exchange,
    FaultServer,
    Respond,
    Silence,
    swallow,
)
from stalepool.testing.reader import Ended
from worlds import WITH_TESTS

WHO = {"stock": stock, "shim": shim}

#: the least there is of everything: an unacknowledged request is given up after 1 s (and up to 0.7
#: more, measured), an acknowledged one after the second probe
HASTY = {
    "replay": "idempotent",
    "user_timeout_s": 1,
    "keepalive_idle_s": 1,
    "keepalive_interval_s": 1,
    "keepalive_count": 2,
}
BOUND_S = 1 + 2  # the user timeout and 2 s
PATIENCE_S = BOUND_S + 0.7  # the caller's read timeout, which stock waits for


@dataclass(frozen=True)
class ReadThenBlackHole(AnswerStep):
    """Reads the request and acts on it; from then on nothing arrives. Acknowledged, processed."""

    keeps_connection = False

    def answer(self, exchange: Exchange) -> None:
        exchange.process()
        swallow(exchange.channel.sock)
        try:
            exchange.channel.pause(None)
        except Ended:
            # a FIN would be retransmitted for a minute
            exchange.channel.reset(how="stopped")
            raise


class Outcome(NamedTuple):
    """How a request ended: plain data, from whatever process.

    ``end``: the status, or the error's name. ``errno``: the kernel's, where it gave up.
    ``arrived``: the numbers of the connections on which the request came, acted on each time.
    """

    end: Any
    errno: Optional[int]
    took_s: float
    arrived: List[int]
    connections: int
    counted: Dict[str, Any]


def outcome(server: FaultServer, origin: Any, send: Callable[[], int]) -> Outcome:
    before, number, began = len(server.journal), None, time.monotonic()
    try:
        end: Any = send()
    except HTTPError as error:
        end, number = type(error).__name__, errno_of(error)
    took_s = time.monotonic() - began
    arrived = list(server.journal)[before:]
    assert all(entry.processed for entry in arrived)
    counted = counters(origin)
    return Outcome(
        end,
        number,
        took_s,
        [entry.connection for entry in arrived],
        len(server.journal.connections),
        {group: counted[group] for group in ("replays", "replays_refused") if counted.get(group)},
    )


def errno_of(error: Optional[BaseException]) -> Optional[int]:
    while error is not None:
        if getattr(error, "errno", None) is not None:
            return error.errno  # type: ignore[attr-defined]
        error = error.__cause__ or error.__context__
    return None


HOLES = {
    "unacknowledged": [Respond(200), BlackHole()],
    "acknowledged": [Respond(200), ReadThenBlackHole()],
}


def fall(
    hole: str,
    method: str,
    tls: Optional[TLS] = None,
    timeout: Any = PATIENCE_S,
    default: Optional[AnswerStep] = None,
    **options: Any,
) -> Outcome:
    """One request on a reused connection that is a black hole; a fresh one is none."""
    with FaultServer(HOLES[hole], tls=tls, default=default) as server:
        with pool_for(server, tls, timeout=timeout) as pool:
            assert get(pool) == 200
            if hole == "unacknowledged":
                server.wait_idle_step()
            return outcome(server, server, lambda: pool.request(method, "/", **options).status)


def side_by_side(*falls: Callable[[], Outcome]) -> List[Outcome]:
    """All at once, in threads; green ones in a green process."""
    outcomes: List[Any] = [None] * len(falls)

    def run(number: int) -> None:
        outcomes[number] = falls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(falls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# -- methods, holes, TLS ---------------------------------------------------------------------------

CASES = [
    (hole, method, is_tls)
    for hole in HOLES
    for method in ("GET", "PUT", "POST")
    for is_tls in (False, True)
]


def fall_by_every_method() -> List[Outcome]:
    """One outcome for each of CASES."""
    tls = TLS()

    def case(hole: str, method: str, is_tls: bool) -> Callable[[], Outcome]:
        body = None if method == "GET" else b"x"
        return lambda: fall(hole, method, tls if is_tls else None, body=body)

    return side_by_side(*(case(*each) for each in CASES))


def check_methods(who: str, outcomes: List[Outcome]) -> None:
    for (hole, method, is_tls), seen in zip(CASES, outcomes):
        where = (hole, method, is_tls, seen)
        on_the_first = [0] if hole == "acknowledged" else []
        if who == "stock":
            assert seen.end == "ReadTimeoutError", where
            assert seen.errno is None, where
            assert seen.took_s >= PATIENCE_S, where
            assert (seen.arrived, seen.connections) == (on_the_first, 1), where
            continue
        assert seen.took_s < BOUND_S, where
        if method == "POST":
            # Python 3.8 tells the kernel's timeout from a socket's, and so does urllib3 then; over
            # TLS it may look like an EOF
            assert seen.end in ("ReadTimeoutError", "ProtocolError"), where
            assert is_tls or seen.errno == errno.ETIMEDOUT, where
            assert (seen.arrived, seen.connections) == (on_the_first, 1), where
            assert seen.counted == {"replays_refused": {"method": 1}}, where
        else:
            assert seen.end == 200, where
            assert (seen.arrived, seen.connections) == ([*on_the_first, 1], 2), where
            assert seen.counted == {"replays": {"ok": 1}}, where


@pytest.mark.parametrize("world", ["threads", "eventlet"])
@pytest.mark.parametrize("who", WHO)
def test_methods(clients, who, world):
    check_methods(who, clients[world, who, "methods"].result())


# -- a caller with little patience -----------------------------------------------------------------


def a_stream():
    yield b"x"


def fall_alone(timeout: float) -> Outcome:
    """The listener has gone as well: the fresh connection is refused."""
    with FaultServer() as server, Gate(server) as gate, pool_for(gate, timeout=timeout) as pool:
        assert get(pool) == 200
        gate.swallow()
        gate.stop_listening()
        return outcome(server, gate, lambda: get(pool))


IMPATIENT = {
    "7 s": lambda: fall("unacknowledged", "GET", timeout=7),
    "5 s": lambda: fall("unacknowledged", "GET", timeout=5),
    "1 s": lambda: fall("unacknowledged", "GET", timeout=1),
    "nobody answers": lambda: fall("unacknowledged", "GET", timeout=5, default=Silence()),
    "nobody listens": lambda: fall_alone(timeout=5),
    "a stream": lambda: fall("acknowledged", "POST", timeout=7, body=a_stream()),
}


def fall_impatiently() -> List[Outcome]:
    """One outcome for each of IMPATIENT."""
    return side_by_side(*IMPATIENT.values())


def test_stock_takes_all_the_time_it_is_given(clients):
    seen = dict(zip(IMPATIENT, clients["threads", "stock", "patience"].result()))
    limits_s = {"7 s": 7, "5 s": 5, "1 s": 1, "nobody answers": 5, "nobody listens": 5}
    for name, limit_s in {**limits_s, "a stream": 7}.items():
        assert seen[name].end == "ReadTimeoutError", (name, seen)
        assert limit_s <= seen[name].took_s < limit_s + 2, (name, seen)
        assert seen[name].connections == 1, (name, seen)


def test_a_caller_with_less_patience_than_twice_the_user_timeout(clients):
    """It is lowered, to 3 s at the least: a replay fits in, and both take no longer than one."""
    seen = dict(zip(IMPATIENT, clients["threads", "shim", "patience"].result()))

    for name, lowered_s in (("7 s", 3.5), ("5 s", 3)):
        assert seen[name].end == 200, seen
        assert lowered_s <= seen[name].took_s < lowered_s + 1.5, seen
        assert seen[name].arrived == [1], seen

    # the caller's own limit comes first: its error, and no replay
    assert seen["1 s"].end == "ReadTimeoutError", seen
    assert seen["1 s"].errno is None, seen
    assert seen["1 s"].connections == 1, seen
    assert seen["1 s"].counted == {"replays_refused": {"other_failure": 1}}, seen

    for name in ("nobody answers", "nobody listens"):
        # the first error, which is the kernel's, and not that of the second try
        assert seen[name].errno == errno.ETIMEDOUT, seen
        assert 3 <= seen[name].took_s < 5 + 1.5, seen
        assert seen[name].counted == {"replays": {"failed": 1}}, seen
    assert seen["nobody answers"].arrived == [1], seen
    assert seen["nobody listens"].arrived == [], seen

    # no user timeout there, so it is the probes that count: 1 + 2 * 1 s
    assert seen["a stream"].errno == errno.ETIMEDOUT, seen
    assert 3 <= seen["a stream"].took_s < 3 + 2, seen
    assert seen["a stream"].arrived == [0], seen


# -- the clients -----------------------------------------------------------------------------------

#: what a client does -> how, and the settings it has where it has the shim
WORK = {
    "methods": (fall_by_every_method, HASTY),
    "patience": (fall_impatiently, {k: v for k, v in HASTY.items() if k != "user_timeout_s"}),
}

CLIENT = """
    import json, sys

    from worlds import enter
    world, who, what = sys.argv[1:]
    if world != "threads":
        enter(world)
    import test_black_hole as tests

    work, settings = tests.WORK[what]
    with tests.WHO[who](**(settings if who == "shim" else {})):
        print(json.dumps(work()))
"""

_clients: Dict[Any, Any] = {}


@pytest.fixture
def clients(run_python):
    """(world, who, what) -> the future of its outcomes; all start when the first is wanted."""

    def run(*client: str) -> List[Outcome]:
        return [Outcome(*each) for each in run_python(CLIENT, *client, env=WITH_TESTS)]

    if not _clients:
        wanted = [(world, who, "methods") for world in ("threads", "eventlet") for who in WHO]
        wanted += [("threads", who, "patience") for who in WHO]
        with ThreadPoolExecutor(len(wanted)) as executor:
            _clients.update({client: executor.submit(run, *client) for client in wanted})
    return _clients


# -- the default numbers ---------------------------------------------------------------------------


def test_the_default_numbers():
    """Acknowledged and never answered: what that can cost; keystoneauth1's numbers cost 120 s."""
    settings = Settings()
    by_probes_s = (
        settings.keepalive_idle_s + settings.keepalive_count * settings.keepalive_interval_s
    )
    # with a user timeout the probe after it is the last one, however many were to follow
    assert settings.user_timeout_s <= by_probes_s <= 32
    # so there must be room for more than one before: one may be lost, and the peer alive
    last_but_one_s = by_probes_s - settings.keepalive_interval_s
    assert last_but_one_s <= settings.user_timeout_s
    with shim(), FaultServer() as server, pool_for(server) as pool:
        assert get(pool) == 200
        sock = pooled_connection(pool).sock
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [5, 5, 3]


@pytest.mark.slow
def test_the_default_numbers_in_time():
    cases = [(hole, method) for hole in HOLES for method in ("GET", "POST")]
    with shim(replay="idempotent"):
        outcomes = side_by_side(*(lambda case=case: fall(*case, timeout=None) for case in cases))
    for (hole, method), seen in zip(cases, outcomes):
        where = (hole, method, seen)
        assert seen.took_s < (32 if hole == "acknowledged" else 15 + 2), where
        on_the_first = [0] if hole == "acknowledged" else []
        if method == "GET":
            assert (seen.end, seen.arrived) == (200, [*on_the_first, 1]), where
        else:
            assert (seen.errno, seen.arrived) == (errno.ETIMEDOUT, on_the_first), where
