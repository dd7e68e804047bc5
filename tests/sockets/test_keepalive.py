"""TCP keepalive: taken as a whole, filled in and tightened; at connect, or at the next checkout."""

import ctypes
import functools
import importlib.util
import os
import shutil
import socket
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from keystoneauth1.session import TCPKeepAliveAdapter

import stalepool
import stalepool_testing as testing
from breaks import breaks, raises
from pools import counters, get, in_stock, pool_for, pooled_connection, serving, shim
from replay_routes import proxied
from replay_tools import side_by_side
from stalepool.settings import Settings
from stalepool.sockets import keepalive, layers, tcp_info
from stalepool.sockets.keepalive import Keepalive
from stalepool_testing import TLS, FaultServer

ON = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
NUMBERS = [(socket.IPPROTO_TCP, getattr(socket, "TCP_KEEP" + n)) for n in ("IDLE", "INTVL", "CNT")]
USER_TIMEOUT = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
OURS = [1, 5, 3, 42]


def read(sock):
    """SO_KEEPALIVE, idle, interval, count."""
    return [int(bool(sock.getsockopt(*ON[:2]))), *(sock.getsockopt(*each) for each in NUMBERS)]


def of(pool):
    return read(layers.layers_of(pooled_connection(pool).sock).raw)


def socket_options(on, *numbers):
    """As urllib3 takes them."""
    return [(*ON[:2], on), *((*option, number) for option, number in zip(NUMBERS, numbers))]


with socket.socket() as pristine:
    UNTOUCHED = read(pristine)

POLICIES = ("off", "respect", "tighten")
#: what an application sets by itself, and by the policy off stays; what respect and tighten make of
#: it. SO_KEEPALIVE, idle, interval, count; the total is idle + interval * count, 131 s of ours
APPLICATIONS = {
    "unset": (UNTOUCHED, OURS, OURS),
    "at the system's pace": ([1, *UNTOUCHED[1:]], OURS, OURS),
    # a dead peer is found after 120 s
    "keystoneauth1's": ([1, 60, 15, 4], [1, 60, 15, 4], [1, 6, 3, 38]),
    "begins late, ends soon": ([1, 10, 4, 2], [1, 10, 4, 2], [1, 6, 3, 4]),
    # of 58 probes a link that is down would not send so many that the next write has no retry left
    "a short interval": ([1, 60, 1, 3], [1, 60, 1, 3], [1, 60, 1, 3]),
    "stricter": ([1, 3, 2, 2], [1, 3, 2, 2], [1, 3, 2, 2]),
    "begins early, ends late": ([1, 3, 30, 9], [1, 3, 30, 9], [1, 3, 3, 42]),
    "numbers without keepalive": ([0, 60, 15, 4], [1, 60, 15, 4], OURS),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("application", APPLICATIONS)
def test_policies(application, policy):
    sets = APPLICATIONS[application][0]
    wanted = APPLICATIONS[application][POLICIES.index(policy)]
    with testing.healthy() as pair:
        for option in socket_options(*sets):
            pair.client.setsockopt(*option)
        arm = functools.partial(keepalive.apply_policy, layers.layers_of(pair.client))
        assert arm(Settings(keepalive=policy)) is (wanted != sets)
        assert read(pair.client) == wanted
        assert arm(Settings(keepalive=policy)) is False


@pytest.mark.parametrize("value", [{"idle_s": 32768}, {"interval_s": 32768}, {"count": 128}])
def test_where_one_number_is_refused_all_stay(value):
    """By a sandbox, say. With the system's count our interval would end what lives after 32 s."""
    ((name, too_large),) = value.items()
    refused = SimpleNamespace(**{**Settings().as_dict(), "keepalive_" + name: too_large})
    with testing.healthy() as pair:
        for option in socket_options(*APPLICATIONS["numbers without keepalive"][0]):
            pair.client.setsockopt(*option)
        before = read(pair.client)
        with pytest.raises(OSError, match="Invalid argument"):
            keepalive.apply_policy(layers.layers_of(pair.client), refused)
        assert read(pair.client) == before


@pytest.mark.parametrize(
    ("options", "unanswered", "is_probed"),
    [
        (socket_options(*OURS), 1, True),
        (socket_options(*OURS), 40, False),
        (socket_options(1, 5, 3, 5), 1, False),
        ([*socket_options(*OURS), (*USER_TIMEOUT, 8000)], 1, False),
        (socket_options(0, 5, 3, 42), 1, False),
    ],
    ids=["ours", "near the last one", "a short count", "a user timeout", "no keepalive"],
)
def test_one_more_probe_does_not_bring_the_end_near(options, unanswered, is_probed):
    with testing.healthy() as pair:
        for option in options:
            pair.client.setsockopt(*option)
        set_again = []
        with breaks("setting of keepalive", by=lambda *args: set_again.append(args)):
            keepalive.probe_now(layers.layers_of(pair.client), unanswered)
        assert bool(set_again) is is_probed


def test_a_connection_pooled_before():
    """It is armed at its next checkout, once. No user timeout is set: that would end what lives."""
    of_keystoneauth1 = TCPKeepAliveAdapter().poolmanager.connection_pool_kw
    with serving(tls="TLSv1.3", **of_keystoneauth1) as (server, pool):
        assert in_stock(get, pool) == 200
        assert of(pool) == APPLICATIONS["keystoneauth1's"][0]
        with shim():
            assert [get(pool), get(pool), get(pool)] == [200] * 3
            assert of(pool) == [1, 6, 3, 38]
            assert pooled_connection(pool).sock.getsockopt(*USER_TIMEOUT) == 0
            assert len(server.journal.connections) == 1
            assert counters(server)["keepalive_armed"] == 1
            stalepool.install(keepalive_idle_s=4, keepalive_interval_s=2, keepalive_count=5)
            assert get(pool) == 200
            assert of(pool) == [1, 4, 2, 5]  # changed settings reach it, too


@pytest.mark.parametrize("is_tunnel", [False, True], ids=["direct", "tunnel"])
@pytest.mark.parametrize(
    "options, wanted",
    [([(*USER_TIMEOUT, 8000)], UNTOUCHED), ([(*NUMBERS[2], 3), ON], OURS)],
    ids=["a user timeout", "keepalive"],
)
def test_options_that_a_class_sets_after_its_connect(options, wanted, is_tunnel):
    """With a user timeout of the class a single unanswered probe would end the connection."""
    with shim(), proxied(tls=TLS() if is_tunnel else None) as way:
        pool = way.pool if is_tunnel else pool_for(way.server)

        class SetsItsOptionsLate(pool.ConnectionCls):
            def connect(self):
                super().connect()
                for option in options:
                    layers.layers_of(self.sock).raw.setsockopt(*option)

        with pool:
            pool.ConnectionCls = SetsItsOptionsLate
            assert get(pool) == 200
            assert of(pool) == wanted


def test_methods_of_a_socket_class_are_not_called():
    """It may permit nobody to change, or to ask for, an option."""
    strict = type("Strict", (socket.socket,), {"setsockopt": raises, "getsockopt": raises})
    with FaultServer() as server, strict() as sock:
        sock.connect((server.host, server.port))
        taken_apart = layers.layers_of(sock)
        assert keepalive.apply_policy(taken_apart, Settings())
        assert keepalive.read(taken_apart) == Keepalive(*OURS[1:])
        assert tcp_info.ask(taken_apart).state == tcp_info.ESTABLISHED


@pytest.mark.parametrize("lacking", [0, 1, 2])
def test_a_platform_that_lacks_an_option(lacking):
    """It is left alone: keepalive at the system's own pace would tell nothing in time."""
    options = list(keepalive._OPTIONS)
    options[lacking] = None
    with breaks("keepalive's options", by=tuple(options)), testing.healthy() as pair:
        taken_apart = layers.layers_of(pair.client)
        assert keepalive.apply_policy(taken_apart, Settings()) is False
        assert read(pair.client) == UNTOUCHED
        pair.client.setsockopt(*ON)
        assert keepalive.read(taken_apart) is None  # it is not told


def test_macos_has_another_name_for_the_idle_time(monkeypatch):
    monkeypatch.delattr("_socket.TCP_KEEPIDLE")
    monkeypatch.setattr("_socket.TCP_KEEPALIVE", 0x10, raising=False)
    spec = importlib.util.find_spec("stalepool.sockets.keepalive")
    there = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(there)
    assert there._OPTIONS == (0x10, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


def have_a_network_of_its_own():
    if ctypes.CDLL(None).unshare(0x40000000):  # CLONE_NEWNET, linux/sched.h
        raise testing.Unavailable("a network namespace")


def arm_where_the_system_is_slow():
    have_a_network_of_its_own()
    path = "/proc/sys/net/ipv4/tcp_keepalive_time"
    if not os.access(path, os.W_OK):
        raise testing.Unavailable("the settings of a network namespace")
    with open(path, "w") as idle_s:
        idle_s.write("40000")
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        keepalive.apply_policy(layers.layers_of(sock), Settings(keepalive="respect"))
        return keepalive.read(layers.layers_of(sock))


def test_the_systems_idle_time_is_longer_than_can_be_set(call_python):
    """Which is 32767 s, tcp(7). The application has set a number of probes alone."""
    assert call_python(arm_where_the_system_is_slow) == [40000, 75, 4]


def post_while_this_machine_cannot_send(chosen):
    def ip(command):
        subprocess.check_call(["ip", *command.split()])

    have_a_network_of_its_own()
    if shutil.which("ip") is None:
        raise testing.Unavailable("the command ip")
    ip("link set lo up")
    # the rule of local addresses comes first, and does not let others come before it
    ip("rule add pref 10 lookup local")
    ip("rule del pref 0")
    stalepool.install(**chosen)
    with FaultServer() as server, pool_for(server, timeout=60) as pool:
        assert get(pool) == 200
        ip("rule add pref 5 prohibit")
        time.sleep(22)
        threading.Timer(3, ip, ["rule del pref 5"]).start()
        try:
            return pool.request("POST", "/", body=b"x").status
        except urllib3.exceptions.HTTPError as error:
            return type(error).__name__


@pytest.mark.slow
def test_this_machine_cannot_send_for_a_while(call_python):
    """Its probes count as retries of the request. With 17 of them it would be lost at once."""
    dense = {"keepalive_interval_s": 1, "keepalive_count": 127}
    run = functools.partial(call_python, post_while_this_machine_cannot_send)
    plays = [functools.partial(run, each) for each in ({"enabled": False}, {}, dense)]
    assert side_by_side(plays) == [200, 200, "ReadTimeoutError"]


@settings(derandomize=True, database=None, deadline=None)
@given(*[st.builds(Keepalive, *[st.integers(1, n) for n in (32767, 32767, 127)])] * 2)
def test_tightened_never_loosens(ours, theirs):
    """It gives up no later than either; where theirs is the shorter one, not a probe earlier."""
    found = keepalive.tightened(ours, theirs)
    assert found.total_s <= min(ours.total_s, theirs.total_s)
    assert 1 <= found.probes <= 127
    if theirs.total_s <= ours.total_s:
        assert found.total_s == theirs.total_s
        assert found.interval_s <= theirs.interval_s
        if found != theirs and found.probes < 127:
            assert found.idle_s < ours.idle_s + found.interval_s


def test_what_is_read_and_not_set():
    with testing.healthy() as pair:
        taken_apart = layers.layers_of(pair.client)
        assert keepalive.read(taken_apart) is None
        keepalive.apply_policy(taken_apart, Settings())
        keepalive.probe_rarely(taken_apart, Settings())
        assert keepalive.read(taken_apart) == Keepalive(5, 75, 42)
        keepalive.probe_every(taken_apart, 1)
        keepalive.probe_rarely(taken_apart, Settings())  # numbers of somebody else's
        assert keepalive.read(taken_apart) == Keepalive(1, 1, 42)
    with pytest.raises(OSError):
        keepalive.apply_policy(taken_apart, Settings())
    keepalive.probe_rarely(taken_apart, Settings())  # another thread closes when it likes


def test_what_has_no_probes_has_no_keepalive_whatever_its_owner_has_set():
    with testing.healthy(family=socket.AF_UNIX) as pair:
        pair.client.setsockopt(*ON)
        assert keepalive.read(layers.layers_of(pair.client)) is None
        assert not keepalive.apply_policy(layers.layers_of(pair.client), Settings())
    keepalive.probe_every(None, 1)  # a socket of an unknown kind: nothing is done
