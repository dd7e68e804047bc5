"""POSTs that are apart stay on their connection, unless there is a reason to fear for it.

All that takes seconds is done side by side, in threads of one process; the tests look at what was
seen. Names that end in ``.test`` are looked up in a table of this module.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional
from unittest import mock

import pytest
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

import stalepool
from breaks import breaks
from gates import Gate
from network import FAR, DistantHost
from pools import counters, get, pool_for, pooled_connection, shim, stock
from stalepool_testing import (
    TLS,
    Close,
    CloseAfter,
    ConnectProxy,
    FaultServer,
    Respond,
    Unavailable,
    kernel,
    swallow,
)
from worlds import beside

ON = {"replay": "idempotent", "presend_check": True, "nonidempotent_max_idle_s": "auto"}
WHO = {"stock": stock, "shim": lambda: shim(**ON)}

#: idle time between two POSTs: where the clock was taken for evidence, 1 s was
APART_S = 1.1
#: the last quarter of an announced second
HINT = {"Keep-Alive": "timeout=1"}
NEAR_S = 0.85


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

    def __init__(self, *addresses: Optional[List[str]], takes_s: float = 0.0) -> None:
        self.host = "name-%d.test" % next(_numbers)
        self.lookups = 0
        self._addresses = addresses
        self._takes_s = takes_s
        _names[self.host] = self

    def look_up(self, port: Any) -> List[Any]:
        found = self._addresses[min(self.lookups, len(self._addresses) - 1)]
        self.lookups += 1
        time.sleep(self._takes_s)
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
        name = _names.get(str(host).rstrip("."))
        return real(host, port, *args, **kwargs) if name is None else name.look_up(port)

    with mock.patch.object(socket, "getaddrinfo", getaddrinfo):
        yield


# -- one case --------------------------------------------------------------------------------------


class Recorder:
    """Connections of a pool write down whether the kept one was open when they were opened.

    And how long each operation of that might take.
    """

    def __init__(self, pool: Any) -> None:
        self.opened: List[bool] = []
        self.limits_s: List[Any] = []
        self.kept: Any = None
        recorder, base = self, HTTPSConnection if pool.scheme == "https" else HTTPConnection

        class Recording(base):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                kept = recorder.kept
                recorder.opened.append(kept is not None and kept.fileno() >= 0)
                recorder.limits_s.append(self.timeout)
                super().connect()

        pool.ConnectionCls = Recording


def ask(pool: Any, pauses_s: Any, method: str = "POST", **options: Any) -> List[Any]:
    """Send a request after each pause; returns how they ended."""
    ends: List[Any] = []
    for pause_s in pauses_s:
        time.sleep(pause_s)
        try:
            body = b"x" if method == "POST" else None
            ends.append(pool.request(method, "/", body=body, **options).status)
        except (HTTPError, OSError) as error:
            ends.append(type(error).__name__)
    return ends


def seen_at(server: Any, ends: List[Any], counted_at: Any = None, **more: Any) -> Seen:
    counted = counters(counted_at or server)
    entries = [entry.connection for entry in server.journal]
    connections = len(server.journal.connections)
    moved, knowledge = counted.get("moved", {}), counted.get("knowledge", {})
    return Seen(ends, entries, connections, moved, knowledge, **more)


def posts(
    pauses_s: Any = (0, APART_S, APART_S),
    *,
    default: Any = None,
    script: Any = (),
    name: Optional[Name] = None,
    tls: Optional[TLS] = None,
    server_class: Any = FaultServer,
    method: str = "POST",
    headers: Any = None,
    **options: Any,
) -> Seen:
    """Requests apart; ``options`` are the pool's."""
    options.setdefault("timeout", urllib3.Timeout(connect=0.5, read=20.0))
    host = "127.0.0.1" if name is None else "0.0.0.0"
    with server_class(script, default=default, tls=tls, host=host) as server:
        with pool_for(server, tls, **options) as pool:
            pool.host = pool._tunnel_host = "127.0.0.1" if name is None else name.host
            recorder = Recorder(pool)
            ends = ask(pool, pauses_s[:1], method, headers=headers)
            recorder.kept = pooled_connection(pool).sock
            ends += ask(pool, pauses_s[1:], method, headers=headers)
            addresses = [c.sock.getsockname()[0] for c in server.channels if c.is_open]
            lookups = 0 if name is None else name.lookups
            return seen_at(
                server, ends, lookups=lookups, opened=recorder.opened, addresses=addresses
            )


# -- apart, and no reason to move ------------------------------------------------------------------


class OneAtATime(FaultServer):
    """Serves one connection at a time, from its handshake on; the others wait until it is gone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._turn = threading.Lock()
        super().__init__(*args, **options)

    def _serve_one(self, channel: Any) -> None:
        with self._turn:
            super()._serve_one(channel)


def dead_first_address(pauses_s: Any = (0, APART_S, APART_S), default: Any = None) -> Seen:
    """A name with two addresses; connects to the first one get no answer."""
    name = Name(["127.0.0.9", "127.0.0.1"])
    with FaultServer(default=default) as server, socket.socket() as dead:
        dead.bind(("127.0.0.9", server.port))
        dead.listen()
        swallow(dead)
        limit = urllib3.Timeout(connect=0.5, read=20.0)
        with urllib3.HTTPConnectionPool(name.host, server.port, retries=False) as pool:
            ends = ask(pool, pauses_s, timeout=limit)
            return seen_at(server, ends, lookups=name.lookups)


def sessions_behind_a_balancer() -> Seen:
    """A TCP balancer: each connection gets the next backend, and each backend has its sessions."""
    logged_in = set()

    def backend(name: str) -> Callable[[Any], Respond]:
        def answer(request: Any) -> Respond:
            if request.path == "/login":
                logged_in.add(name)
            return Respond(200 if name in logged_in else 401)

        return answer

    class Balancer:
        host = "127.0.0.1"

        def __init__(self, *servers: FaultServer) -> None:
            self._ports = itertools.cycle(server.port for server in servers)

        @property
        def port(self) -> int:
            return next(self._ports)

    with FaultServer(backend("a")) as one, FaultServer(backend("b")) as other:
        with Gate(Balancer(one, other)) as gate, pool_for(gate) as pool:
            assert pool.request("POST", "/login").status == 200
            return seen_at(one, ask(pool, (APART_S, APART_S)), gate)


def one_source_port() -> Seen:
    """The kernel may choose among one port for this client's sockets."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    ip_local_port_range = 51  # ip(7), since Linux 6.3
    option = (socket.IPPROTO_IP, ip_local_port_range, struct.pack("HH", port, port))
    try:
        with socket.socket() as sock:
            sock.setsockopt(*option)
    except OSError as error:
        raise Unavailable(error.errno, "no port range of a socket's own here: %s" % error) from None
    return posts(socket_options=[*HTTPConnection.default_socket_options, option])


def fixed_source_port(**options: Any) -> Seen:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        source = taken.getsockname()
    return posts(source_address=source, **options)


def draining(pauses_s: Any = (APART_S, APART_S), default: Any = None) -> Seen:
    """Nobody listens any more; what is connected is served until the client goes."""
    with FaultServer(default=default) as server, Gate(server) as gate, pool_for(gate) as pool:
        recorder = Recorder(pool)
        assert get(pool) == 200
        recorder.kept = pooled_connection(pool).sock
        gate.stop_listening()
        ends = ask(pool, pauses_s)
        return seen_at(server, ends, gate, opened=recorder.opened)


APART: Dict[str, Callable[[], Seen]] = {
    "plain": posts,
    "TLS": lambda: posts(tls=TLS()),
    "dead first address": dead_first_address,
    "slow look-ups": lambda: posts(name=Name(["127.0.0.1"], takes_s=0.5)),
    "names are gone": lambda: posts(name=Name(["127.0.0.1"], None)),
    "names change": lambda: posts(name=Name(["127.0.0.1"], ["127.0.0.2"])),
    "sessions behind a balancer": sessions_behind_a_balancer,
    "one source port": one_source_port,
    "fixed source port": fixed_source_port,
    "draining": draining,
    "one at a time": lambda: posts(server_class=OneAtATime),
    "TLS, one at a time": lambda: posts(server_class=OneAtATime, tls=TLS()),
    "PATCH": lambda: posts(method="PATCH"),
    "far from an announced limit": lambda: posts(
        default=Respond(headers={"Keep-Alive": "timeout=75"})
    ),
}


# -- an idle limit is near -------------------------------------------------------------------------

NEAR = (0, NEAR_S)
LIMITED = Respond(headers=HINT)


def observed(then_idle_s: float) -> Seen:
    """Three connections end at the same idle age; the fourth lives on, and a POST comes."""
    limit_s = 1.2
    answers = itertools.count()

    def script(_: Any) -> Any:
        return [Respond(200), CloseAfter(limit_s)] if next(answers) < 3 else Respond(200)

    with FaultServer(script) as server, pool_for(server) as pool:
        recorder = Recorder(pool)
        for _ in range(3):
            assert get(pool) == 200
            kernel.wait_readable(pooled_connection(pool).sock)
        assert get(pool) == 200
        recorder.kept = pooled_connection(pool).sock
        ends = ask(pool, [then_idle_s])
        return seen_at(server, ends, opened=recorder.opened)


def through_a_proxy() -> Seen:
    """TLS inside a CONNECT tunnel; the proxy sees the name, and the certificate is checked."""
    tls = TLS()
    with FaultServer(default=LIMITED, tls=tls) as server, ConnectProxy() as proxy:
        with urllib3.ProxyManager(proxy.url, ca_certs=tls.ca_path, retries=False) as manager:
            ends = []
            for pause_s in NEAR:
                time.sleep(pause_s)
                url = "https://localhost:%d/" % server.port
                ends.append(manager.request("POST", url, body=b"x", timeout=20.0).status)
            return seen_at(server, ends)


def fresh_one_ends() -> Seen:
    """The connection that a POST moved to ends before an answer; then two more POSTs."""
    script = [LIMITED, Close(), *[LIMITED] * 5]
    return posts((0, NEAR_S, 0, NEAR_S), script=script)


LIMIT_IS_NEAR: Dict[str, Callable[[], Seen]] = {
    "plain": lambda: posts(NEAR, default=LIMITED),
    "TLS": lambda: posts(NEAR, default=LIMITED, tls=TLS()),
    "names change": lambda: posts(
        NEAR, default=LIMITED, name=Name(["127.0.0.3"], ["127.0.0.2"], None)
    ),
    "dead first address": lambda: dead_first_address(NEAR, LIMITED),
    "one at a time": lambda: posts(NEAR, default=LIMITED, server_class=OneAtATime),
    "proxy": through_a_proxy,
    "GET": lambda: posts(NEAR, default=LIMITED, method="GET"),
    "with a key": lambda: posts(NEAR, default=LIMITED, headers={"Idempotency-Key": "1"}),
    # where no fresh socket can be had
    "draining": lambda: draining((NEAR_S, NEAR_S), LIMITED),
    "fixed source port": lambda: fixed_source_port(pauses_s=(*NEAR, NEAR_S), default=LIMITED),
    "TLS, one at a time": lambda: posts(
        (*NEAR, NEAR_S), default=LIMITED, server_class=OneAtATime, tls=TLS()
    ),
    "fresh one ends": fresh_one_ends,
    "observed": lambda: observed(1.25),
    "outlived": lambda: observed(1.95),
}

# -- running them ----------------------------------------------------------------------------------


def side_by_side(cases: Dict[str, Callable[[], Seen]]) -> Dict[str, Any]:
    """All at once; what a case raises is what was seen of it."""
    seen: Dict[str, Any] = {}

    def run(name: str) -> None:
        try:
            seen[name] = cases[name]()
        except BaseException as error:
            seen[name] = error

    TLS()  # its certificates are made once, by whoever is first
    threads = [threading.Thread(target=run, args=(name,)) for name in cases]
    with names():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return seen


def unhurried_moves() -> Any:
    """A busy machine may need longer than a move is given; hosts far away show how long that is."""
    return breaks("limit of a move", by=3.0)


_seen: Dict[Any, Any] = {}


def seen_of(who: str, cases: Dict[str, Callable[[], Seen]], name: str) -> Seen:
    """What was seen of a case; all cases run when the first one is wanted."""
    key = (who, id(cases))
    if key not in _seen:
        with WHO[who](), unhurried_moves():
            _seen[key] = side_by_side(cases)
    found = _seen[key][name]
    if isinstance(found, BaseException):
        raise found
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", APART)
@pytest.mark.parametrize("who", WHO)
def test_posts_apart(who, name):
    """Stock: all answered, on one connection, with one look-up, and one handshake."""
    seen = seen_of(who, APART, name)
    assert set(seen.ends) == {200}, seen
    assert set(seen.on) == {0}, seen
    assert seen.connections == 1, seen
    assert seen.lookups <= 1, seen
    assert not seen.moved, seen


def test_stock_stays_near_a_limit():
    """Stock: any request rides, whatever was announced."""
    with stock():
        seen = posts(NEAR, default=LIMITED)
    assert (seen.ends, seen.on) == ([200, 200], [0, 0])


MOVES = ["plain", "TLS", "names change", "dead first address", "one at a time", "proxy"]


def is_moved(name: str, seen: Seen) -> None:
    assert seen.ends == [200, 200], seen
    assert (seen.on, seen.connections) == ([0, 1], 2), seen
    assert seen.moved == {"announced_limit": 1}, seen
    assert not seen.knowledge["moves_are_stopped"], seen
    # opened before the old one was closed
    assert seen.opened in (None, [False, True]), seen


@pytest.mark.parametrize("name", MOVES)
def test_a_post_near_an_announced_limit(name):
    """Stock: it rides the old connection, and fails where that ends."""
    is_moved(name, seen_of("shim", LIMIT_IS_NEAR, name))


def test_a_move_goes_to_the_old_address():
    """Stock would look the name up, wherever that leads by now."""
    seen = seen_of("shim", LIMIT_IS_NEAR, "names change")
    assert seen.lookups == 1
    assert set(seen.addresses) == {"127.0.0.3"}
    assert seen_of("shim", LIMIT_IS_NEAR, "dead first address").lookups == 1


@pytest.mark.parametrize("name", ["GET", "with a key"])
def test_what_may_be_sent_again_stays(name):
    """Stock: as any request."""
    seen = seen_of("shim", LIMIT_IS_NEAR, name)
    assert (seen.ends, seen.on, seen.moved) == ([200, 200], [0, 0], {}), seen


def test_a_name_with_a_dot_at_its_end():
    """Stock: any name will do. What is learnt is learnt of one origin, with its port."""
    name = Name(["127.0.0.1"])
    with WHO["shim"](), names(), FaultServer() as server:
        with urllib3.HTTPConnectionPool(name.host + ".", server.port, retries=False) as pool:
            assert ask(pool, [0, 0]) == [200, 200]
        origins = [each for each in stalepool.snapshot()["origins"] if name.host in each]
    assert origins == ["http://%s:%d" % (name.host, server.port)]


def test_a_tunnel_is_no_surprise():
    """Stock sends CONNECT before there is a request; nothing is left to urllib3 for that."""
    tls = TLS()
    with WHO["shim"](), FaultServer(tls=tls) as server, ConnectProxy() as proxy:
        with urllib3.ProxyManager(proxy.url, ca_certs=tls.ca_path, retries=False) as manager:
            for _ in range(2):
                assert manager.request("POST", server.url, body=b"x", timeout=20.0).status == 200
        assert stalepool.snapshot()["fallbacks"] == {}


STUCK = ["draining", "fixed source port", "TLS, one at a time"]


def stays(seen: Seen) -> None:
    assert set(seen.ends) == {200}, seen
    assert set(seen.on) == {0}, seen
    assert seen.moved == {"failed": 1}, seen
    assert seen.knowledge["moves_are_stopped"], seen
    # one for the first request, one that failed, and none for the third request
    assert seen.opened == [False, True], seen


@pytest.mark.parametrize("name", STUCK)
def test_where_no_fresh_socket_can_be_had(name):
    """Stock: all of them ride one connection. Here, too, and it is not tried again for a while."""
    stays(seen_of("shim", LIMIT_IS_NEAR, name))


def test_a_fresh_connection_that_ends():
    """Stock: the old connection. Here its error is the caller's, and moves are over for a while."""
    seen = seen_of("shim", LIMIT_IS_NEAR, "fresh one ends")
    assert seen.ends == [200, "ProtocolError", 200, 200], seen
    assert seen.on == [0, 1, 2, 2], seen
    assert seen.moved == {"announced_limit": 1}, seen
    assert seen.knowledge["moves_are_stopped"], seen


def test_a_post_near_an_observed_limit():
    """Stock: it rides the old connection, and fails where that ends."""
    seen = seen_of("shim", LIMIT_IS_NEAR, "observed")
    assert (seen.ends, seen.on) == ([200], [0, 1, 2, 3, 4]), seen
    assert seen.moved == {"observed_limit": 1}, seen
    assert 1.0 < seen.knowledge["observed_idle_limit_s"] < 1.4, seen
    assert seen.opened[-1] is True, seen


def test_an_observed_limit_that_is_outlived():
    """Stock: one connection. Here it is forgotten: the connection lives."""
    seen = seen_of("shim", LIMIT_IS_NEAR, "outlived")
    assert (seen.ends, seen.on, seen.moved) == ([200], [0, 1, 2, 3, 3], {}), seen
    assert seen.knowledge["observed_idle_limit_s"] is None, seen


# -- the setting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting, idle_s, on, moved",
    [
        (0, 0.0, [0, 1, 2], {"idle_setting": 2}),
        (0.2, 0.3, [0, 1, 2], {"idle_setting": 2}),
        (5, 0.3, [0, 0, 0], {}),
        ("off", NEAR_S, [0, 0, 0], {}),
    ],
)
def test_the_setting_asks_for_the_clock(setting, idle_s, on, moved):
    """Stock: one connection."""
    with shim(**{**ON, "nonidempotent_max_idle_s": setting}):
        seen = posts((0, idle_s, idle_s), default=LIMITED)
    assert seen.ends == [200, 200, 200]
    assert (seen.on, seen.moved) == (on, moved)


# -- clients in a process of their own -------------------------------------------------------------

WITH_THIS = beside(__file__)


def side_by_side_printed(cases: Dict[str, Callable[[], Any]]) -> None:
    seen = side_by_side(cases)
    for found in seen.values():
        if isinstance(found, BaseException):
            raise found
    json.dump({name: tuple(each) for name, each in seen.items()}, sys.stdout)


# -- under eventlet --------------------------------------------------------------------------------

GREEN = """
    from worlds import enter
    enter("eventlet")
    import test_request_rules_moves as tests

    tests.green_client()
"""


def green_client() -> None:
    with WHO["shim"](), unhurried_moves():
        side_by_side_printed({name: LIMIT_IS_NEAR[name] for name in [*MOVES, *STUCK]})


def test_moves_under_eventlet(run_python):
    """Stock: as on threads."""
    # eventlet leaves a TLS socket whose handshake failed to its finalizer, which warns
    flags = ("-Wignore:unclosed:ResourceWarning",)
    seen = run_python(GREEN, env=WITH_THIS, flags=flags)
    for name in MOVES:
        is_moved(name, Seen(*seen[name]))
    for name in STUCK:
        stays(Seen(*seen[name]))


# -- a host that is far away -----------------------------------------------------------------------

CONNECT_S = 10.0
#: what opens a connection, and a request with its answer: TCP, TLS 1.3, HTTP
OPENED = 3


class SeenFarAway(NamedTuple):
    """What became of POSTs over TLS.

    ``round_trips``: for each POST, counted on the link. ``limits_s``: of each operation that opens
    a connection, for each of them.
    """

    ends: List[Any]
    on: List[int]
    moved: Dict[str, int]
    round_trips: List[int]
    limits_s: List[float]


def far_away(
    pauses_s: Any, round_trip_s: float = 0.05, server_class: Any = FaultServer, default: Any = None
) -> SeenFarAway:
    """POSTs apart, to a server on another host; each case has a network of its own."""
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
        return SeenFarAway(ends, seen.on, seen.moved, round_trips, recorder.limits_s)


FAR_AWAY: Dict[str, Callable[[], SeenFarAway]] = {
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
        side_by_side_printed(FAR_AWAY)


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


# -- a balancer that counts connections ------------------------------------------------------------

HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s

frontend balancer
    bind fd@{descriptor}
    stick-table type ip size 1k expire 60s store conn_rate(60s)
    tcp-request connection track-sc0 src
    tcp-request connection reject if {{ sc0_conn_rate gt 2 }}
    default_backend servers

backend servers
    server one 127.0.0.1:{port}
"""


@pytest.mark.full
@pytest.mark.haproxy
@pytest.mark.parametrize("who", WHO)
def test_a_limit_on_new_connections(haproxy_binary, tmp_path, who):
    """Stock: one connection, no error. haproxy rejects the third one within a minute."""
    config = tmp_path / "haproxy.cfg"
    with FaultServer() as server, socket.create_server(("127.0.0.1", 0)) as listener:
        config.write_text(HAPROXY.format(descriptor=listener.fileno(), port=server.port))
        haproxy = subprocess.Popen(
            [haproxy_binary, "-db", "-f", str(config)],
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with WHO[who](), urllib3.HTTPConnectionPool(
                *listener.getsockname(), retries=False, timeout=20.0
            ) as pool:
                assert ask(pool, [0, *[APART_S] * 3]) == [200] * 4
        finally:
            haproxy.terminate()
            haproxy.wait(10)
