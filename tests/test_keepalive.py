"""TCP keepalive: filled in and tightened, never loosened; at connect, and where that was missed."""

from __future__ import annotations

import _socket
import socket

import keystoneauth1.session
import pytest
import requests
import urllib3

import stalepool
from pools import counters, get, pooled_connection, serving, shim, stock
from stalepool import keepalive, testing, wire
from stalepool.settings import Settings
from stalepool.testing import TLS, ConnectProxy, FaultServer

OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
OURS = [1, 5, 5, 3]


def read(sock):
    """SO_KEEPALIVE, idle, interval, count."""
    raw = wire.raw_of(sock)
    found = [int(bool(raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))]
    return found + [raw.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in OPTIONS]


with socket.socket() as pristine:
    UNTOUCHED = read(pristine)

#: what an application sets by itself -> what each policy makes of it; SO_KEEPALIVE, idle, interval,
#: count
APPLICATIONS = {
    "unset": {
        "off": UNTOUCHED,
        "respect": OURS,
        "tighten": OURS,
        "force": OURS,
    },
    "looser": {  # keystoneauth1's own: a dead peer is found after 120 s
        "sets": [1, 60, 15, 4],
        "off": [1, 60, 15, 4],
        "respect": [1, 60, 15, 4],
        "tighten": OURS,
        "force": OURS,
    },
    "stricter": {
        "sets": [1, 3, 2, 2],
        "off": [1, 3, 2, 2],
        "respect": [1, 3, 2, 2],
        "tighten": [1, 3, 2, 2],
        "force": OURS,
    },
    "mixed": {
        "sets": [1, 3, 30, UNTOUCHED[3]],
        "off": [1, 3, 30, UNTOUCHED[3]],
        # a count that the system has as well is nobody's wish
        "respect": [1, 3, 30, 3],
        "tighten": [1, 3, 5, 3],
        "force": OURS,
    },
}
POLICIES = ("off", "respect", "tighten", "force")


def socket_options(values):
    """As urllib3 takes them."""
    on, *numbers = values
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, on)] + [
        (socket.IPPROTO_TCP, getattr(socket, name), number)
        for name, number in zip(OPTIONS, numbers)
    ]


@pytest.fixture(params=[None, "TLSv1.3"], ids=["plain", "tls"])
def tls(request):
    return None if request.param is None else TLS(request.param)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("application", APPLICATIONS)
def test_policies_at_connect(tls, application, policy):
    sets = APPLICATIONS[application].get("sets")
    options = {} if sets is None else {"socket_options": socket_options(sets)}
    with shim(keepalive=policy), serving(tls=tls, **options) as (server, pool):
        assert get(pool) == 200
        wanted = APPLICATIONS[application][policy]
        assert read(pooled_connection(pool).sock) == wanted
        changed = wanted != (sets or UNTOUCHED)
        assert counters(server).get("keepalive_armed", 0) == int(changed)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("application", APPLICATIONS)
def test_policies_on_a_connection_pooled_before(tls, application, policy):
    sets = APPLICATIONS[application].get("sets")
    options = {} if sets is None else {"socket_options": socket_options(sets)}
    with serving(tls=tls, **options) as (server, pool):
        with stock():
            assert get(pool) == 200
            assert read(pooled_connection(pool).sock) == (sets or UNTOUCHED)
        with shim(keepalive=policy):
            assert [get(pool), get(pool), get(pool)] == [200] * 3
            wanted = APPLICATIONS[application][policy]
            assert read(pooled_connection(pool).sock) == wanted
            assert len(server.journal.connections) == 1
            changed = wanted != (sets or UNTOUCHED)
            assert counters(server)["keepalive_armed"] == int(changed)


@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_keystoneauth1s_own_adapter_is_tightened(who):
    """60 s, then four probes 15 s apart: what makes nova-api wait for 120 s."""
    with who(), FaultServer() as server, requests.Session() as below:
        below.trust_env = False
        below.mount("http://", keystoneauth1.session.TCPKeepAliveAdapter())
        session = keystoneauth1.session.Session(session=below)
        session.get(server.url, authenticated=False)
        pools = below.get_adapter(server.url).poolmanager.pools
        (key,) = pools.keys()
        wanted = [1, 60, 15, 4] if who is stock else OURS
        assert read(pooled_connection(pools[key]).sock) == wanted


def test_our_numbers_are_settings():
    settings = {"keepalive_idle_s": 7, "keepalive_interval_s": 6, "keepalive_count": 5}
    with shim(**settings), serving() as (_, pool):
        assert get(pool) == 200
        assert read(pooled_connection(pool).sock) == [1, 7, 6, 5]


def test_counted_once_for_each_connection():
    with shim(), serving() as (server, pool):
        for _ in range(4):
            assert get(pool) == 200
        assert counters(server)["keepalive_armed"] == 1
        server.perform(testing.CloseAfter(0))
        assert get(pool) == 200
        assert counters(server)["keepalive_armed"] == 2


def test_changed_settings_reach_pooled_connections():
    with shim(keepalive="off"), serving() as (_, pool):
        assert [get(pool), get(pool)] == [200, 200]
        assert read(pooled_connection(pool).sock) == UNTOUCHED
        stalepool.install(keepalive="force", keepalive_idle_s=20)
        assert get(pool) == 200
        assert read(pooled_connection(pool).sock) == [1, 20, 5, 3]


def test_ipv6():
    with shim(), serving(family=socket.AF_INET6) as (_, pool):
        assert get(pool) == 200
        assert read(pooled_connection(pool).sock) == OURS


def test_before_the_first_byte_of_tls(monkeypatch):
    """A handshake with a peer that has vanished is bounded, too."""
    seen = []
    wrap = urllib3.connection.ssl_wrap_socket

    def looking(sock, *args, **kwargs):
        seen.append(read(sock))
        return wrap(sock, *args, **kwargs)

    monkeypatch.setattr(urllib3.connection, "ssl_wrap_socket", looking)
    tls = TLS()
    with shim(), serving(tls=tls) as (_, pool):
        assert get(pool) == 200
    assert seen == [OURS]


def test_before_the_first_byte_of_connect(monkeypatch):
    seen = []
    tunnel = urllib3.connection.HTTPConnection._tunnel

    def looking(self):
        seen.append(read(self.sock))
        return tunnel(self)

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "_tunnel", looking)
    tls = TLS()
    with shim(), FaultServer(tls=tls) as server, ConnectProxy() as proxy:
        url = "http://127.0.0.1:%d" % proxy.port
        with urllib3.ProxyManager(url, ca_certs=tls.ca_path, retries=False) as manager:
            assert manager.request("GET", server.url).status == 200
        assert counters(server)["keepalive_armed"] == 1
    assert seen == [OURS]


def test_af_unix_is_left_alone():
    with shim(), serving(family=socket.AF_UNIX) as (server, pool):
        assert [get(pool), get(pool)] == [200, 200]
        sock = pooled_connection(pool).sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert counters(server)["keepalive_armed"] == 0
        assert stalepool.snapshot()["fallbacks"] == {}


# -- other platforms -----------------------------------------------------------------------------


def test_a_platform_without_the_numbers(monkeypatch):
    """What is there is set: keepalive itself, at the system's own pace."""
    monkeypatch.setattr(keepalive, "_KNOWN_OPTIONS", [])
    with shim(), serving() as (_, pool):
        assert [get(pool), get(pool)] == [200, 200]
        assert read(pooled_connection(pool).sock) == [1, *UNTOUCHED[1:]]
        assert stalepool.snapshot()["fallbacks"] == {}


def test_macos_has_another_name_for_the_idle_time(monkeypatch):
    monkeypatch.delattr(_socket, "TCP_KEEPIDLE")
    monkeypatch.setattr(_socket, "TCP_KEEPALIVE", 0x10, raising=False)
    monkeypatch.delattr(_socket, "TCP_KEEPCNT")
    assert keepalive._known_options() == [
        ("keepalive_idle_s", 0x10),
        ("keepalive_interval_s", _socket.TCP_KEEPINTVL),
    ]


@pytest.mark.parametrize("at", ["connect", "checkout"])
def test_a_kernel_that_refuses(monkeypatch, at):
    """Noted once, and the request goes on."""

    def refuse(the_wire, settings):
        raise OSError("no")

    with serving() as (server, pool):
        if at == "checkout":
            with stock():
                assert get(pool) == 200
        with shim():
            monkeypatch.setattr(keepalive, "arm", refuse)
            assert get(pool) == 200
            assert stalepool.snapshot()["fallbacks"] == {"keepalive_failed": 1}
            assert len(server.journal.connections) == 1


# -- the rule by itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy, ours, theirs, system, wanted",
    [
        ("respect", 15, 7200, 7200, 15),
        ("respect", 15, 600, 600, 15),  # an operator's sysctl is nobody's wish for this socket
        ("respect", 15, 60, 7200, 60),
        ("respect", 15, 5, 7200, 5),
        ("tighten", 15, 7200, 7200, 15),
        ("tighten", 15, 10, 10, 10),  # a system that is stricter by itself stays so
        ("tighten", 15, 60, 7200, 15),
        ("tighten", 15, 5, 7200, 5),
        ("force", 15, 5, 7200, 15),
        ("force", 15, 7200, 7200, 15),
    ],
)
def test_wanted(policy, ours, theirs, system, wanted):
    assert keepalive.wanted(policy, ours, theirs, system) == wanted


def test_arm_says_whether_it_set_anything():
    with testing.healthy() as pair:
        taken_apart = wire.wire_of(pair.client)
        assert keepalive.idle_s(taken_apart) is None
        assert keepalive.arm(taken_apart, Settings()) is True
        assert keepalive.arm(taken_apart, Settings()) is False
        pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        assert keepalive.arm(taken_apart, Settings()) is True
        assert keepalive.idle_s(taken_apart) == 5
    with pytest.raises(OSError):
        keepalive.arm(taken_apart, Settings())
