"""A POST after an idle time stays on its connection, unless the connection is likely to end now.

All cases run side by side, since they take seconds. Names that end in ``.test`` are looked up in
a table of this module.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional
from unittest import mock

import pytest
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from breaks import breaks
from gates import Gate
from network import FAR, DistantHost
from pools import DEFAULTS, counters, get, pool_for, shim, stock
from replay_routes import proxied
from replay_tools import Case, side_by_side, wrong, wrong_in_stock
from stalepool_testing import TLS, Close, FaultServer, Respond, swallow
from worlds import beside

WHO = {"stock": stock, "shim": lambda: shim(**DEFAULTS)}

#: idle time between two POSTs: where the clock was taken for evidence, 1 s was
APART_S = 1.1
#: the last quarter of an announced second
HINT = {"Keep-Alive": "timeout=1"}
NEAR_S = 0.85
#: a quarter of it is the most that a move may take
CONNECT_S = 10.0


class Seen(NamedTuple):
    """What became of the requests of one case: plain data, from whatever process.

    ``ends``: statuses, or names of errors. ``on``: numbers of the connections that they came on.
    ``lookups``: of names. ``opened``: for each connection, whether the one before was open then.
    """

    ends: List[Any]
    on: List[int]
    connections: int
    moved: Dict[str, int]
    knowledge: Dict[str, Any]
    lookups: int = 0
    opened: Optional[List[bool]] = None
    addresses: Optional[List[str]] = None


# -- names -----------------------------------------------------------------------------------------


class Name:
    """One name of the table, its look-ups counted.

    :param addresses: what the first look-up finds, what the second finds, and so on; the last one
        stays. None: there is no such name any more.
    """

    def __init__(self, *addresses: Optional[List[str]]) -> None:
        self.host = "name-%d.test" % next(_numbers)
        self.lookups = 0
        self._addresses = addresses
        _names[self.host] = self

    def look_up(self, port: Any) -> List[Any]:
        found = self._addresses[min(self.lookups, len(self._addresses) - 1)]
        self.lookups += 1
        if found is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]


_names: Dict[str, Name] = {}
_numbers = itertools.count()


@contextlib.contextmanager
def names() -> Iterator[None]:
    """Have the names of the table known."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = _names.get(str(host))
        return real(host, port, *args, **kwargs) if name is None else name.look_up(port)

    with mock.patch.object(socket, "getaddrinfo", getaddrinfo):
        yield


# -- one case --------------------------------------------------------------------------------------


class Recorder:
    """Connections of a pool write down whether the one before was open when they were opened.

    And how long each operation of that might take.
    """

    def __init__(self, pool: Any) -> None:
        self.opened: List[bool] = []
        self.limits_s: List[Any] = []
        self.before: Any = None
        recorder, base = self, HTTPSConnection if pool.scheme == "https" else HTTPConnection

        class Recording(base):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                before = recorder.before
                recorder.opened.append(before is not None and before.fileno() >= 0)
                recorder.limits_s.append(self.timeout)
                super().connect()
                recorder.before = self.sock

        pool.ConnectionCls = Recording


def ask(pool: Any, pauses_s: Any, **options: Any) -> List[Any]:
    """Send a POST after each pause; returns how they ended."""
    ends: List[Any] = []
    for pause_s in pauses_s:
        time.sleep(pause_s)
        try:
            ends.append(pool.request("POST", "/", body=b"x", **options).status)
        except (HTTPError, OSError) as error:
            ends.append(type(error).__name__)
    return ends


def seen_at(server: Any, ends: List[Any], counted_at: Any = None, **more: Any) -> Seen:
    counted = counters(counted_at or server)
    entries = [entry.connection for entry in server.journal]
    connections = len(server.journal.connections)
    moved, knowledge = counted.get("moved", {}), counted.get("knowledge", {})
    return Seen(ends, entries, connections, moved, knowledge, **more)


def own_address(channel: Any) -> Optional[str]:
    """The server's address of a connection; None if that has ended."""
    try:
        return str(channel.sock.getsockname()[0])
    except OSError:
        return None


def posts(
    pauses_s: Any = (0, APART_S),
    *,
    default: Any = None,
    script: Any = (),
    name: Optional[Name] = None,
    tls: Optional[TLS] = None,
    server_class: Any = FaultServer,
    **options: Any,
) -> Seen:
    """POSTs apart; ``options`` are the pool's."""
    options.setdefault("timeout", urllib3.Timeout(connect=CONNECT_S, read=20.0))
    host = "127.0.0.1" if name is None else "0.0.0.0"
    with server_class(script, default=default, tls=tls, host=host) as server:
        with pool_for(server, tls, **options) as pool:
            pool.host = pool._tunnel_host = "127.0.0.1" if name is None else name.host
            recorder = Recorder(pool)
            ends = ask(pool, pauses_s)
            addresses = [each for each in map(own_address, server.channels) if each]
            lookups = 0 if name is None else name.lookups
            return seen_at(
                server, ends, lookups=lookups, opened=recorder.opened, addresses=addresses
            )


# -- an idle limit is near -------------------------------------------------------------------------

NEAR = (0, NEAR_S)
LIMITED = Respond(headers=HINT)


class OneAtATime(FaultServer):
    """Serves one connection at a time, from its handshake on; the others wait until it is gone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._turn = threading.Lock()
        super().__init__(*args, **options)

    def _serve_one(self, channel: Any) -> None:
        with self._turn:
            super()._serve_one(channel)


def dead_first_address() -> Seen:
    """A name with two addresses; connects to the first one get no answer."""
    name = Name(["127.0.0.9", "127.0.0.1"])
    with FaultServer(default=LIMITED) as server, socket.socket() as dead:
        dead.bind(("127.0.0.9", server.port))
        dead.listen()
        swallow(dead)
        with urllib3.HTTPConnectionPool(name.host, server.port, retries=False) as pool:
            ends = ask(pool, NEAR[:1], timeout=urllib3.Timeout(connect=1.0, read=20.0))
            ends += ask(pool, NEAR[1:], timeout=20.0)
            return seen_at(server, ends, lookups=name.lookups)


def fixed_source_port() -> Seen:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        source = taken.getsockname()
    return posts((*NEAR, NEAR_S), default=LIMITED, source_address=source)


def draining() -> Seen:
    """Nobody listens any more; what is connected is served until the client goes."""
    with FaultServer(default=LIMITED) as server, Gate(server) as gate, pool_for(gate) as pool:
        recorder = Recorder(pool)
        assert get(pool) == 200
        gate.stop_listening()
        ends = ask(pool, (NEAR_S, NEAR_S))
        return seen_at(server, ends, gate, opened=recorder.opened)


def through_a_proxy() -> Seen:
    """TLS inside a CONNECT tunnel; the proxy sees the name, and the certificate is checked."""
    with proxied(default=LIMITED, tls=TLS()) as way:
        ends = []
        for pause_s in NEAR:
            time.sleep(pause_s)
            url = "https://localhost:%d/" % way.server.port
            ends.append(way.manager.request("POST", url, body=b"x", timeout=20.0).status)
        return seen_at(way.server, ends)


def fresh_one_ends() -> Seen:
    """The connection that a POST moved to ends before an answer; then two more POSTs."""
    script = [LIMITED, Close(), *[LIMITED] * 5]
    return posts((0, NEAR_S, 0, NEAR_S), script=script)


# -- what has to be seen ---------------------------------------------------------------------------


def rides(seen: Seen) -> bool:
    """All were answered, on one connection, with one look-up, and one handshake."""
    on_the_first = set(seen.ends) == {200} and set(seen.on) == {0}
    return on_the_first and seen.connections == 1 and seen.lookups <= 1 and not seen.moved


def is_moved(seen: Seen) -> bool:
    return (
        seen.ends == [200, 200]
        and (seen.on, seen.connections) == ([0, 1], 2)
        and seen.moved == {"announced_limit": 1}
        and not seen.knowledge["moves_stopped_for_s"]
        # opened before the old one was closed
        and seen.opened in (None, [False, True])
    )


def is_moved_without_a_look_up(seen: Seen) -> bool:
    """Stock would look the name up, wherever that leads by now."""
    return is_moved(seen) and seen.lookups == 1


def is_moved_to_the_old_address(seen: Seen) -> bool:
    return is_moved_without_a_look_up(seen) and set(seen.addresses or ()) == {"127.0.0.3"}


def stays(seen: Seen) -> bool:
    """No fresh socket could be had, and it is not tried again for a while."""
    return (
        set(seen.ends) == {200}
        and set(seen.on) == {0}
        and seen.moved == {"failed": 1}
        and seen.knowledge["moves_stopped_for_s"]
        # one for the first request, one that failed, and none for the third request
        and seen.opened == [False, True]
    )


def is_the_callers_error(seen: Seen) -> bool:
    """That of the connection it moved to; moves are over for a while."""
    return (
        seen.ends == [200, "ProtocolError", 200, 200]
        and seen.on == [0, 1, 2, 2]
        and seen.moved == {"announced_limit": 1}
        and seen.knowledge["moves_stopped_for_s"]
    )


def fails_once(seen: Seen) -> bool:
    return seen.ends == [200, "ProtocolError", 200, 200] and not seen.moved


# -- the cases -------------------------------------------------------------------------------------

case = functools.partial(Case, in_stock=rides)

CASES: Dict[str, Case] = {
    # no reason to move
    "names are gone": case(lambda: posts(name=Name(["127.0.0.1"], None)), rides),
    "TLS, apart": case(lambda: posts(tls=TLS()), rides),
    "far from an announced limit": case(
        lambda: posts((0, 0.1), default=Respond(headers={"Keep-Alive": "timeout=2"})), rides
    ),
    # a limit is near
    "plain": case(lambda: posts(NEAR, default=LIMITED), is_moved),
    "TLS": case(lambda: posts(NEAR, default=LIMITED, tls=TLS()), is_moved),
    "names change": case(
        lambda: posts(NEAR, default=LIMITED, name=Name(["127.0.0.3"], ["127.0.0.2"], None)),
        is_moved_to_the_old_address,
    ),
    "dead first address": case(dead_first_address, is_moved_without_a_look_up),
    "one at a time": case(lambda: posts(NEAR, default=LIMITED, server_class=OneAtATime), is_moved),
    "proxy": case(through_a_proxy, is_moved),
    # where no fresh socket can be had
    "draining": case(draining, stays),
    "fixed source port": case(fixed_source_port, stays),
    "TLS, one at a time": case(
        lambda: posts(
            (*NEAR, NEAR_S),
            default=LIMITED,
            server_class=OneAtATime,
            tls=TLS(),
            timeout=urllib3.Timeout(connect=2.0, read=20.0),
        ),
        stays,
    ),
    "fresh one ends": Case(fresh_one_ends, is_the_callers_error, fails_once),
}

GREEN_CASES = {
    name: CASES[name] for name in ("plain", "TLS", "proxy", "draining", "TLS, one at a time")
}


def wrong_with_the_shim(cases: Dict[str, Case]) -> Dict[str, Any]:
    # a busy machine may need longer than a move is given; hosts far away show how long that is
    with WHO["shim"](), breaks("limit of a move", by=3.0), names():
        return wrong(cases)


def test_on_threads():
    """Stock: any request rides, whatever was announced."""
    assert wrong_with_the_shim(CASES) == {}


def test_stock_rides():
    with names():
        assert wrong_in_stock(CASES) == {}


# -- clients in a process of their own -------------------------------------------------------------

WITH_THIS = beside(__file__)

GREEN = """
    import json

    from worlds import enter
    enter("eventlet")
    import test_request_rules_moves as tests

    print(json.dumps(tests.wrong_with_the_shim(tests.GREEN_CASES)))
"""


def test_under_eventlet(run_python):
    """Stock: as on threads."""
    # eventlet leaves a TLS socket whose handshake failed to its finalizer, which warns
    flags = ("-Wignore:unclosed:ResourceWarning",)
    assert run_python(GREEN, env=WITH_THIS, flags=flags) == {}


# -- a host that is far away -----------------------------------------------------------------------

#: what opens a connection, and a request with its answer: TCP, TLS 1.3, HTTP
OPENED = 3


def far_away(
    pauses_s: Any, round_trip_s: float = 0.05, server_class: Any = FaultServer, default: Any = None
) -> List[Any]:
    """POSTs apart over TLS, to a server on another host; each case has a network of its own.

    Returns how they ended, the numbers of the connections that they came on, what was moved, the
    round trips of each, as counted on the link, and for each connection the limit on each
    operation that opened it.
    """
    host, tls = DistantHost(round_trip_s / 2), TLS()
    with host.inside():
        server = server_class(default=default, tls=tls, host=FAR)
    limit = urllib3.Timeout(connect=CONNECT_S, read=20.0)
    with server, pool_for(server, tls, assert_hostname="localhost", timeout=limit) as pool:
        recorder, ends, round_trips = Recorder(pool), [], []  # type: Any, List[Any], List[int]
        for pause_s in pauses_s:
            time.sleep(pause_s)
            before = host.round_trips
            ends += ask(pool, [0])
            round_trips.append(host.round_trips - before)
        seen = seen_at(server, ends)
        return [ends, seen.on, seen.moved, round_trips, recorder.limits_s]


FAR_AWAY: Dict[str, Callable[[], List[Any]]] = {
    "apart": lambda: far_away((0, APART_S, APART_S)),
    "near": lambda: far_away(NEAR, default=LIMITED),
    # one round trip takes longer than the 0.25 s
    "near, farther away": lambda: far_away(NEAR, 0.3, default=LIMITED),
    "near, one at a time": lambda: far_away(NEAR, server_class=OneAtATime, default=LIMITED),
}

#: where it is not as in stock
FAR_AWAY_WITH_THE_SHIM: Dict[str, Any] = {
    "near": ([0, 1], {"announced_limit": 1}, [OPENED, OPENED]),
    "near, farther away": ([0, 1], {"announced_limit": 1}, [OPENED, OPENED]),
    # TCP is the kernel's; TLS has to wait, and the POST rides the old one then
    "near, one at a time": ([0, 0], {"failed": 1}, [OPENED, 2]),
}

FAR_AWAY_CLIENT = """
    import sys
    import test_request_rules_moves as tests

    tests.far_away_client(sys.argv[1])
"""


def far_away_client(who: str) -> None:
    with WHO[who]():
        seen = side_by_side(list(FAR_AWAY.values()))
    print(json.dumps(dict(zip(FAR_AWAY, seen))))


@pytest.mark.full
@pytest.mark.parametrize("who", WHO)
def test_posts_far_away(run_python, who):
    """Stock: one connection and its handshake; each POST after that is one round trip."""
    seen = run_python(FAR_AWAY_CLIENT, who, env=WITH_THIS)
    for name in FAR_AWAY:
        ends, *what, limits_s = seen[name]
        assert set(ends) == {200}, (name, ends)
        count = len(ends)
        expected = ([0] * count, {}, [OPENED] + [1] * (count - 1))
        if who == "shim":
            expected = FAR_AWAY_WITH_THE_SHIM.get(name, expected)
        assert tuple(what) == expected, name
        assert limits_s[0] == CONNECT_S
    if who == "shim":
        for name, round_trip_s in (("near", 0.05), ("near, farther away", 0.3)):
            (limit_s,) = seen[name][-1][1:]
            assert 8 * round_trip_s <= limit_s < CONNECT_S
