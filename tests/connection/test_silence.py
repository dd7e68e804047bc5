"""A peer that says nothing: what lives is waited for, as stock does; what is dead is noticed.

All cases run side by side, since they take seconds; the settings are a fifth of the default ones.
``test_silence_watch`` has what the kernel says of a peer, row by row.
"""

import contextlib
import ctypes
import functools
import socket
import struct
import time
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
from urllib3.exceptions import HTTPError

import stalepool_testing as testing
from pools import DEFAULTS, counters, get, pool_for, pooled_connection, shim
from replay_tools import side_by_side
from stalepool.sockets import keepalive
from stalepool.sockets.layers import layers_of
from stalepool_testing import TLS, AnswerStep, FaultServer, Respond, Silence

#: the wait on silence and the probes in a fifth of their time, and as many probes as ever
SHORT = {**DEFAULTS, "silence_s": 3, "keepalive_idle_s": 1, "keepalive_interval_s": 1}
#: a caller's read timeout in whose first half S = 3 s, two more probes, and delays have room
LIMIT_S = 30.0
#: the same for four retransmissions, which take 3 s
NOBODY_LIMIT_S = 10.0
#: nobody's limit: what lives answers before
PATIENT_S = 60.0


def ask(server, pool, method="GET", body=b""):
    """``end``: the status, or the error's name. ``on``: the numbers of the connections on which the
    request came; it was acted on each time. The rest is what was counted.
    """
    before, began = len(server.journal), time.monotonic()
    name = pooled_connection(pool).sock.getsockname()
    try:
        end = pool.request(method, "/", body=body).status
    except (HTTPError, OSError) as error:
        end = type(error).__name__
    took_s = time.monotonic() - began
    counted = {"replays": {}, "moved": {}, "knowledge": {}, **counters(server)}
    return {
        **{name: counted.get(name, {}) for name in ("replays", "moved", "verdicts", "gone")},
        **{"end": end, "took_s": took_s, "connections": len(server.journal.connections)},
        "still_sent": is_still_sent(name),
        "on": [entry.connection for entry in list(server.journal)[before:] if entry.processed],
        "probes": counted["knowledge"].get("keepalive_probes"),
    }


def is_still_sent(name):
    """Tell whether the kernel goes on to send what was written to a socket that is closed."""
    address = "%08X:%04X" % (*struct.unpack("=I", socket.inet_aton(name[0])), name[1])
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    fin_wait_1, fin = "04", 1
    queues = [row[4] for row in rows if (row[1], row[3]) == (address, fin_wait_1)]
    return any(int(queue.partition(":")[0], 16) > fin for queue in queues)


@contextlib.contextmanager
def answered(server, timeout_s=PATIENT_S, tls=None):
    """A server, and a pool with a connection to it that has answered."""
    with server, pool_for(server, tls, timeout=timeout_s) as pool:
        assert get(pool) == 200
        yield server, pool


# -- what is played --------------------------------------------------------------------------------


def across_a_gap(method, gap_s, answered_after_s, begins_s=0.3, tls=None):
    """A request on a reused connection is acknowledged; then the network goes away for a while."""
    script = [Respond(200), Respond(200, delay_s=answered_after_s)]
    with answered(FaultServer(script, tls=tls), tls=tls) as (server, pool):
        client = pooled_connection(pool).sock

        def take_the_network_away():
            """Nothing gets through, either way."""
            server.wait_request(2)
            time.sleep(begins_s)
            with server.add(testing.Blackout()):
                testing.swallow(layers_of(client).raw)
                time.sleep(gap_s)
            testing.release(layers_of(client).raw)

        return side_by_side([lambda: ask(server, pool, method), take_the_network_away])[0]


def idle_across_a_gap():
    """The network is away until after a quarter of the caller's time, which a move may take."""
    with answered(FaultServer(), timeout_s=8) as (server, pool), contextlib.ExitStack() as network:
        time.sleep(2.2)
        assert get(pool) == 200
        network.enter_context(server.add(testing.Blackout()))
        testing.swallow(server.channels[0].sock)
        network.callback(testing.release, server.channels[0].sock)
        time.sleep(2.6)

        def bring_it_back():
            time.sleep(3)
            network.close()

        return side_by_side([lambda: ask(server, pool), bring_it_back])[0]


def unread_for(seconds):
    """The peer reads only after a while; what is sent until then fills its buffer."""
    with answered(FaultServer([Respond(200), testing.ZeroWindow(seconds)])) as (server, pool):
        # less than is recorded for a replay, more than a small receive buffer
        return ask(server, pool, "PUT", b"x" * 700_000)


#: classic BPF on a TCP segment, from its header on: (code, jump if true, jump if false, operand)
_DROP_EMPTY = (
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


def swallow_empty(sock):
    """From now on no segment without data arrives here: no keepalive probe, no mere ACK."""
    program = b"".join(struct.pack("HBBI", *line) for line in _DROP_EMPTY)
    buffer = ctypes.create_string_buffer(program, len(program))
    attached = struct.pack("HP", len(_DROP_EMPTY), ctypes.addressof(buffer))
    testing.blackhole._set(sock, testing.blackhole._SO_ATTACH_FILTER, attached)


@dataclass(frozen=True)
class RespondThroughFilter(AnswerStep):
    """An answer whose acknowledgement the filter lets through: it is no probe."""

    delay_s: float = 0.0

    def answer(self, exchange):
        exchange.process()
        exchange.channel.pause(self.delay_s)
        testing.release(exchange.channel.sock)
        exchange.respond(200)
        exchange.channel.flush()
        swallow_empty(exchange.channel.sock)


class FilteredServer(FaultServer):
    """A fault server behind a firewall that lets data through, and no keepalive probe."""

    def _serve_one(self, channel):
        swallow_empty(channel.sock)
        super()._serve_one(channel)


def behind_a_filter(answered_after_s):
    """A slow request, acknowledged; keepalive probes do not reach the peer, data does."""
    script = [RespondThroughFilter(), RespondThroughFilter(answered_after_s)]
    with answered(FilteredServer(script)) as (server, pool):
        return ask(server, pool)


def idle_behind_a_filter(server, count):
    """POSTs, and before each of them the connection is idle for two probes; the last one's end."""
    with answered(server) as (server, pool):
        for _ in range(count):
            time.sleep(2.6)
            seen = ask(server, pool, "POST", b"x")
        interval_s = keepalive.read(layers_of(pooled_connection(pool).sock)).interval_s
        on = [entry.connection for entry in server.journal]
        return {**seen, "on": on, "interval_s": interval_s}


class ReadThenBlackHole(AnswerStep):
    keeps_connection = False

    def answer(self, exchange):
        exchange.process()
        testing.BlackHole().idle(exchange.channel)
        testing.BlackHole().afterwards(exchange.channel)


def acknowledged_and_dead(method="GET", tls=None, timeout_s=LIMIT_S):
    """The request is acknowledged, and acted on; then nothing comes, for any probe either."""
    dying = FaultServer([Respond(200), ReadThenBlackHole()], tls=tls)
    with answered(dying, timeout_s, tls) as (server, pool):
        return ask(server, pool, method)


def unacknowledged_and_dead(
    method="GET", timeout_s=LIMIT_S, default=None, idle_s=0.0, is_known=False, is_gone=False
):
    """The connection drops silently before the request, which nobody acknowledges.

    ``default``: what a fresh one meets. ``is_known``: the origin has answered a probe before.
    """
    server = FaultServer([Respond(200)] * (1 + is_known), default=default)
    with answered(server, timeout_s) as (server, pool):
        if is_known:
            time.sleep(2.2)
            assert get(pool) == 200
        server.channels[0].flush()  # the answer before is acknowledged, and not sent again
        testing.swallow(server.channels[0].sock)
        if is_gone:
            server.stop_listening()
        time.sleep(idle_s)
        return ask(server, pool, method)


def the_old_one_answers():
    """Nothing arrives until the request is on a fresh socket, too; there nobody answers it."""
    with answered(FaultServer([Respond(200), Silence()])) as (server, pool):
        server.channels[0].flush()
        testing.swallow(server.channels[0].sock)

        def bring_it_back():
            server.wait_request(2)
            testing.release(server.channels[0].sock)

        return side_by_side([lambda: ask(server, pool), bring_it_back])[0]


# -- what is seen of it ----------------------------------------------------------------------------


def shows(at_least_s=0, at_most_s=PATIENT_S, **expected):
    """What judges that which was seen."""

    def is_right(seen):
        is_in_time = at_least_s <= seen["took_s"] < at_most_s
        return is_in_time and {name: seen[name] for name in expected} == expected

    return is_right


#: acted on once, and on the connection that it was on
WAITED_FOR = {"end": 200, "on": [0], "replays": {}}
is_waited_for = shows(**WAITED_FOR)
IN_VAIN = {"failed": 1}
SWALLOWED = {"end": 200, "probes": "swallowed", "interval_s": 75}
is_ridden = shows(**WAITED_FOR, at_most_s=8, moved=IN_VAIN, probes="answered")
OTHER_SOCKET = {"end": 200, "on": [1], "connections": 2, "replays": {}}
#: within the wait on silence, and two more probes; a machine that has other things to do
_saved = functools.partial(
    # what was sent first does not arrive after the caller's next request
    *(shows, 0, 3 + 2.2 + 6),
    **{"end": 200, "replays": {"ok": 1}, "gone": {"silent_in_request": 1}, "still_sent": False},
)


def is_sent_on(seen, before=(), **more):
    """On the second connection, or on the third where the second was opened to be probed."""
    newest = seen["connections"] - 1
    return newest in (1, 2) and _saved(on=[*before, newest], **more)(seen)


is_sent_again = functools.partial(is_sent_on, before=(0,), probes="answered")


def times_out(play, after_s=NOBODY_LIMIT_S, **expected):
    """The caller's own timeout is the end."""
    wanted = {"end": "ReadTimeoutError", "on": [0], "replays": {}, **expected}
    return play, shows(after_s, after_s + 3, **wanted)


CASES = {
    # over before the answer; and the answer is in it
    "GET, a gap of 3.6 s": (lambda: across_a_gap("GET", 3.6, 4.5), is_waited_for),
    "GET, a gap of 6 s": (lambda: across_a_gap("GET", 6.0, 4.0), is_waited_for),
    "POST, a gap of 6 s": (
        lambda: across_a_gap("POST", 6.0, 4.0),
        shows(**WAITED_FOR, connections=1),  # not even a connection was opened beside it
    ),
    "TLS: GET, a gap": (lambda: across_a_gap("GET", 3.6, 4.5, tls=TLS()), is_waited_for),
    # no fresh connection could be had
    "idle across a gap": (idle_across_a_gap, is_ridden),
    "PUT unread": (lambda: unread_for(5.0), is_waited_for),
    "GET behind a filter": (lambda: behind_a_filter(7.0), shows(**WAITED_FOR, probes="swallowed")),
    # in stock they ride one connection; here the first took a fresh one, which was silent, too
    "idle behind a filter": (
        lambda: idle_behind_a_filter(FilteredServer(default=RespondThroughFilter()), 3),
        shows(**SWALLOWED, on=[0, 1, 1, 1], moved={"probe_unanswered": 1}),
    ),
    # a probe was answered, which two fresh ones in a row disprove
    "idle behind a new filter": (
        lambda: idle_behind_a_filter(FaultServer([Respond()], default=RespondThroughFilter()), 5),
        shows(**SWALLOWED, on=[0, 0, 1, 2, 2, 2], moved={"probe_unanswered": 2}),
    ),
    "acknowledged GET": (acknowledged_and_dead, is_sent_again),
    "TLS: acknowledged GET": (lambda: acknowledged_and_dead(tls=TLS()), is_sent_again),
    "unacknowledged GET": (unacknowledged_and_dead, is_sent_on),
    # as in stock: a peer that lives might act on it later, and after the caller's next request
    "unacknowledged PUT": times_out(
        lambda: unacknowledged_and_dead("PUT", timeout_s=NOBODY_LIMIT_S), on=[], connections=1
    ),
    # a probe went unanswered, as the request's sending has found, or the check at the checkout
    "pool: POST": (
        lambda: unacknowledged_and_dead("POST", idle_s=3.2),
        shows(**OTHER_SOCKET, moved={"probe_unanswered": 1}),
    ),
    "known: pool: POST": (
        lambda: unacknowledged_and_dead("POST", idle_s=3.2, is_known=True),
        shows(**OTHER_SOCKET, moved={"probe_unanswered": 1}, probes="answered"),
    ),
    "in a hurry": times_out(lambda: acknowledged_and_dead(timeout_s=4), 4),
    "acknowledged POST": times_out(lambda: acknowledged_and_dead("POST", timeout_s=NOBODY_LIMIT_S)),
    "nobody answers": times_out(
        # it accepts, and reads the request; that is all
        lambda: unacknowledged_and_dead(timeout_s=NOBODY_LIMIT_S, default=Silence()),
        on=[1],
        replays=IN_VAIN,
    ),
    # at the next retransmission
    "the old one answers": (the_old_one_answers, shows(3, 15, on=[1, 0], replays=IN_VAIN, end=200)),
    "nobody listens": times_out(
        lambda: unacknowledged_and_dead(timeout_s=NOBODY_LIMIT_S, is_gone=True), on=[]
    ),
}

#: a few of each kind where the world is another one
GREEN = [
    *("GET, a gap of 3.6 s", "TLS: GET, a gap", "PUT unread", "the old one answers"),
    *("acknowledged GET", "TLS: acknowledged GET", "unacknowledged GET", "known: pool: POST"),
]


def wrong(names, cases=CASES, settings=SHORT):
    """What was seen of those cases that are not right; all are played at once."""
    testing.blackhole.require(socket.AF_INET)  # or the cases that need none would be waited for
    with shim(**settings):
        seen = zip(names, side_by_side([cases[name][0] for name in names], at_once=len(names)))
    return {name: outcome for name, outcome in seen if not cases[name][1](outcome)}


def test_on_threads():
    """Stock waits for what lives as well; for the dead until the caller's read timeout."""
    assert wrong(CASES) == {}


@pytest.mark.skipif(find_spec("eventlet") is None, reason="needs eventlet")
def test_under_eventlet(call_python):
    # eventlet leaves a TLS socket whose handshake failed to its finalizer, which warns
    flags = ["-Wignore:unclosed:ResourceWarning"]
    assert call_python(wrong, GREEN, world="eventlet", flags=flags) == {}


#: the first wait ends 0.3 s before a round number
_late = functools.partial(shows, 14.7, 20 + 2, end=200)
DEFAULT_NUMBERS = {
    "POST, a gap of 44 s": (lambda: across_a_gap("POST", 44, 25, begins_s=4.5), is_waited_for),
    # over as a fresh one is opened; the old one's next probe goes out later
    "PUT, a gap of 17.2 s": (lambda: across_a_gap("PUT", 17.2, 30), is_waited_for),
    "GET, a gap of 25 s": (lambda: across_a_gap("GET", 25, 27, begins_s=1), is_waited_for),
    "GET behind a filter": (lambda: behind_a_filter(25), is_waited_for),
    # the first fresh socket is for probes alone
    "acknowledged GET": (lambda: acknowledged_and_dead(timeout_s=60), _late(on=[0, 2])),
    "unacknowledged GET": (lambda: unacknowledged_and_dead(timeout_s=60), _late(on=[1])),
}


@pytest.mark.slow
def test_the_default_numbers():
    """Stock: the first ones end well, and the others after 15 minutes, or the caller's timeout."""
    assert wrong(DEFAULT_NUMBERS, DEFAULT_NUMBERS, DEFAULTS) == {}
