"""A move: for what reasons, within what time; what may happen meanwhile, and be answered."""

import base64
import socket
import threading
from time import monotonic, sleep
from types import SimpleNamespace

import pytest
import urllib3

from breaks import breaks, learnt_before, raises
from delayed_answers import AnswerLater, kernel_says
from pools import (
    DEFAULTS,
    answer_no_connect,
    await_arrival,
    counters,
    get,
    let_pass,
    pool_for,
    pooled_connection,
    serving,
    shim,
    stops_moves,
    wait_idle,
)
from replay_tools import (
    acting,
    after_checkout,
    have,
    reset_after_checkout,
    reused,
    send,
    side_by_side,
    silent_after_checkout,
)
from stalepool import fallback, stats
from stalepool.connection import move
from stalepool.connection.state import Request
from stalepool.settings import Settings
from stalepool.stats import Knowledge
from stalepool_testing import (
    AnswerStep,
    CloseAfter,
    FaultServer,
    Latency,
    ResetAfter,
    Respond,
    Silence,
    release,
    swallow,
)

NEGOTIATES = Respond(401, headers={"WWW-Authenticate": "Negotiate"})

#: seconds since the last answer
IDLE_S = 100.0


def request_with(
    method="POST",
    setting="auto",
    headers=(),
    untrue_limit_s=0.0,
    moves_are_stopped=False,
    moves_again_in_s=0.0,
    died_at=(),
    **facts,
):
    """A request on a connection that is to be moved for no reason, with some facts otherwise."""
    knowledge = Knowledge()
    knowledge.untrue_limit_s = untrue_limit_s
    knowledge.move_again_at = monotonic() + moves_again_in_s
    for number, age_s in enumerate(died_at):
        with learnt_before(200 * (len(died_at) - number)):
            knowledge.note_fin(age_s)
    if moves_are_stopped:
        knowledge.stop_moves()
    # as far as reason_to_move() looks at it
    state = {
        **{"phase": None, "is_bound": False, "idle_limit_s": None, "is_silent": False},
        **{"sock": lambda: None, "idle_s": lambda info: IDLE_S},
        "origin": SimpleNamespace(knowledge=knowledge),
    }
    head = "\r\n".join(["%s / HTTP/1.1" % method, *headers, "", ""]).encode()
    settings = Settings(nonidempotent_max_idle_s=setting)
    conn = urllib3.connection.HTTPConnection("a")
    return Request(SimpleNamespace(**{**state, **facts}), conn, head, settings)


OF_100 = {"died_at": (100.0, 101.0, 105.0)}

REASONS = [
    ("idle_setting", {"setting": 0}),
    ("idle_setting", {"setting": 99}),
    ("announced_limit", {"idle_limit_s": 99.0}),
    ("announced_limit", {"idle_limit_s": 100.4}),
    ("announced_limit", {"idle_limit_s": 99.0, "untrue_limit_s": 98.0}),
    ("observed_limit", OF_100),
    # whatever it is, and whatever is set
    ("probe_unanswered", {"is_silent": True, "setting": "off"}),
    ("probe_unanswered", {"is_silent": True, "method": "GET"}),
]

NO_REASONS = [
    {},
    {"setting": "off", "idle_limit_s": 99.0, **OF_100},
    {"setting": 101, "idle_limit_s": 99.0, **OF_100},
    {"idle_limit_s": 101.0},  # 0.5 s before it at most
    {"idle_limit_s": 70.0},  # it has outlived that
    {"died_at": (100.0, 101.0)},  # thrice, or it was chance
    {"died_at": (100.0, 101.0, 130.0)},
    {"died_at": (10.0, 10.0, 11.0)},  # it has outlived that
    {"died_at": (101.0, 102.0, 103.0)},
    {"untrue_limit_s": 99.0, "idle_limit_s": 99.0},
    {"untrue_limit_s": 99.5, "idle_limit_s": 99.0},  # of another backend
    {"moves_are_stopped": True, "idle_limit_s": 99.0, **OF_100},
    {"setting": 0, "headers": ["Idempotency-Key: k"]},
    {"setting": 0, "is_bound": True},
    {"is_silent": True, "is_bound": True},
    {"is_silent": True, "moves_again_in_s": 60},
    *({"setting": 0, "method": method} for method in ("GET", "PROPFIND", "PUT", "DELETE")),
]


@pytest.mark.parametrize(("name", "facts"), [*REASONS, *((None, facts) for facts in NO_REASONS)])
def test_the_reasons_to_move(name, facts):
    """For which a POST, :data:`IDLE_S` after the last answer, takes a fresh socket."""
    assert move.reason_to_move(request_with(**facts)) == name


def test_every_reason_has_a_row():
    """But for the one that the pre-send check finds."""
    assert {name for name, _ in REASONS} | {move.ENDED} == set(move.MOVE_REASONS)


@pytest.mark.parametrize(
    ("limit_s", "connect_timeout_s", "rtt_us", "moved"),
    [
        *((0.25, None, 0, "failed"), (0.25, None, 100_000, "idle_setting")),
        *((3.0, 30.0, 0, "idle_setting"), (3.0, 3.0, 0, "failed"), (0.25, 3.0, 0, move.SILENT)),
    ],
    ids=["0.25 s", "eight round trips", "a long timeout", "a tenth of a short one", "a quarter"],
)
def test_the_limit_of_a_move(limit_s, connect_timeout_s, rtt_us, moved):
    """This handshake takes 0.4 s and more, as that of a host far away does."""
    options = {"tls": "TLSv1.3", "timeout": urllib3.Timeout(connect=connect_timeout_s, read=30.0)}
    with shim(nonidempotent_max_idle_s=0), reused(**options) as (server, pool):
        is_silent = moved == move.SILENT
        if is_silent:
            silent_after_checkout(pool)
        with server.add(Latency(0.4)), kernel_says(rtt_us=rtt_us, probes=2 * is_silent):
            with breaks("limit of a move", by=limit_s):
                assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {moved: 1}


def test_after_a_slow_move_there_are_none_for_a_while(connects):
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        connects.act = lambda: sleep(0.3)
        assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {"idle_setting": 1}
        assert stops_moves(server)


def test_a_move_that_fails_is_followed_by_a_pause_nine_times_as_long(connects):
    """The name server may be down, too."""

    def fail():
        sleep(0.1)
        raise OSError

    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        connects.act, began = fail, monotonic()
        assert send(server, pool, "POST").status == 200
        took_s = monotonic() - began
        ends = stats.origin(server.origin).knowledge.move_again_at
        assert 10 * 0.1 <= ends - began <= 10 * took_s


def test_a_path_that_is_back_keeps_its_connections():
    """A pool's are all silent until the kernel's next probes, which are 30 s away here."""
    with shim(keepalive_idle_s=1, keepalive_interval_s=30), reused() as (server, pool):
        server.channels[0].flush()
        swallow(server.channels[0].sock)
        wait_idle(pool, 1.6)
        release(server.channels[0].sock)
        assert send(server, pool, "POST").status == 200
        assert [entry.connection for entry in server.journal] == [0, 0]
        assert counters(server)["moved"] == {}
        assert counters(server)["knowledge"]["keepalive_probes"] == "answered"


def test_while_a_move_fails_the_kernel_does_not_give_up_the_old_connection():
    """The application's own keepalive would end it 3 s after the last answer."""
    numbers = (socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)
    options = [(socket.IPPROTO_TCP, *number) for number in numbers]
    options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
    timeout = urllib3.Timeout(connect=6.0, read=30.0)
    with shim(), reused(socket_options=options, timeout=timeout) as (server, pool):
        server.channels[0].flush()
        swallow(server.channels[0].sock)
        answer_no_connect(server)
        wait_idle(pool, 2.2)
        back = threading.Timer(2.5, release, [server.channels[0].sock])
        back.start()
        assert send(server, pool, "POST").status == 200
        back.join()
        assert pooled_connection(pool).sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert counters(server)["moved"] == {"failed": 1}
        assert [entry.connection for entry in server.journal] == [0, 0]


def test_a_host_that_does_not_know_the_connection_has_answered_no_probe():
    """It answers with a RST."""
    with shim(keepalive_idle_s=1, keepalive_interval_s=30), reused() as (server, pool):
        client = pooled_connection(pool).sock
        swallow(client)
        server.perform(ResetAfter(0))
        wait_idle(pool, 1.6)
        release(client)
        assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {move.SILENT: 1}
        assert counters(server)["knowledge"]["keepalive_probes"] == "unknown"


@pytest.mark.parametrize(
    ("said", "connect_s", "wait_s"),
    [
        ({"probes": 1, "rtt_us": 1_000}, None, 0.03),
        ({"probes": 1, "rtt_us": 100_000}, None, 0.2),
        ({"probes": 1, "rtt_us": 100_000}, 0.15, 0.15),
        # a 408, say; the firewall that lets it through may swallow probes
        ({"last_data_recv_ms": 20, "last_ack_recv_ms": 20}, None, 0.03),
    ],
    ids=["a tick", "two round trips", "the connect timeout", "data, which answer no probe"],
)
def test_how_long_the_answer_to_a_probe_is_awaited(sleeper, said, connect_s, wait_s):
    with shim(), reused(timeout=urllib3.Timeout(connect=connect_s, read=30.0)) as (server, pool):
        silent_after_checkout(pool)
        with kernel_says(**said):
            assert send(server, pool, "POST").status == 200
        assert sleeper.pauses == [pytest.approx(wait_s)]
        assert counters(server)["moved"] == {move.SILENT: 1}
        assert counters(server)["knowledge"]["keepalive_probes"] == "unknown"


def test_a_sleep_that_fails_does_not_keep_a_request_on_a_silent_connection(sleeper):
    sleeper.act = raises
    with shim(falls_back=True), reused() as (server, pool):
        silent_after_checkout(pool)
        with kernel_says(probes=1):
            assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {move.SILENT: 1}
        assert fallback.counts() == {"keepalive_failed": 1}


def test_two_requests_that_begin_to_move_together():
    """Both have a reason by then; the other one goes out on its old connection."""
    together, later = threading.Barrier(2), AnswerLater(threading.Event())

    def answer_both():
        server.journal.wait(lambda journal: len(journal.processed("POST")) == 2)
        later.told.set()

    def reason(request):
        together.wait(20)
        return move.ANNOUNCED

    def step(request):
        if request.method == "POST":
            return later
        together.wait(20)  # so that each has a connection of its own
        return Respond()

    with shim(), FaultServer(step) as server:
        with pool_for(server, maxsize=2) as pool:
            side_by_side([lambda: get(pool)] * 2)
            with breaks("reason to move", by=reason):
                side_by_side([lambda: pool.request("POST", "/")] * 2 + [answer_both])
        assert counters(server)["moved"] == {move.ANNOUNCED: 1}
        assert not stops_moves(server)


def test_a_refused_move_has_no_window():
    """Its limit is long where a round trip is; and the old connection lives."""
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        server.stop_listening()
        with breaks("limit of a move", by=2.0):
            assert send(server, pool, "POST").status == 200
        assert [entry.connection for entry in server.journal] == [0, 0]
        counted = counters(server)
        assert (counted["moved"], counted["reconnects"]) == ({"failed": 1}, {})
        assert stops_moves(server)


class OneAtATime(FaultServer):
    """Serves one connection at a time; the others wait until it is gone."""

    def __init__(self):
        self._turn = threading.Lock()
        super().__init__()

    def _serve_one(self, channel):
        with self._turn:
            super()._serve_one(channel)


def test_a_server_that_serves_one_connection_at_a_time():
    """The request waits for its turn, which the close of the old connection brings."""
    with shim(nonidempotent_max_idle_s=0), OneAtATime() as server, pool_for(server) as pool:
        assert [get(pool), send(server, pool, "POST").status] == [200, 200]
        assert [entry.connection for entry in server.journal] == [0, 1]
        assert counters(server)["moved"] == {"idle_setting": 1}


def test_a_limit_at_which_connections_were_closed():
    """The server has closed three at the same age, two of them a while ago."""
    with shim(**DEFAULTS), reused(CloseAfter(1.1)) as (server, pool):
        for seconds_ago in (400, 200):
            with learnt_before(seconds_ago):
                stats.origin(server.origin).knowledge.note_fin(1.3)
        await_arrival(pool)
        assert get(pool) == 200
        wait_idle(pool, 1.0)
        assert send(server, pool, "POST").status == 200
        assert counters(server)["moved"] == {"observed_limit": 1}


def test_a_connection_that_was_closed_meanwhile_takes_none():
    with shim(nonidempotent_max_idle_s=0), reused() as (server, pool):
        closes = [pooled_connection(pool).close]
        acting(pool, lambda: closes.pop()() if closes else None)
        outcome = send(server, pool, "POST")
        # as in stock: http.client opens a third socket and sends, but reads no answer; so
        # whether the server has seen the request by now is a race
        assert isinstance(outcome.error, urllib3.exceptions.ProtocolError)
        assert counters(server)["moved"] == {}
        server.wait_ended(1)


def test_the_callers_timeout_is_on_the_fresh_socket():
    """From the first byte on, as on the old one: it may take longer to send than to connect."""
    said = []
    for rides, setting in enumerate(("off", 0)):
        with shim(nonidempotent_max_idle_s=setting), reused(timeout=7.5) as (server, pool):
            conn = pooled_connection(pool)
            told = (b"%g" % conn.sock.gettimeout() for _ in range(1))  # asked while it is sent
            assert pool.request("POST", "/", body=told).status == 200
            assert server.journal[-1].connection == rides
            said.append((server.journal[-1].body, conn.sock.gettimeout(), conn.timeout))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("step", "stops", "is_kept"),
    [
        (Respond(), False, True),
        # the server may have no slot free for it
        (Respond(delay_s=1.1), True, True),
        # another server, which is bad, or does not know the client: a redirect to its login page
        *((Respond(status), True, False) for status in (302, 400, 401, 403, 404, 503)),
        # to leave this one would lose what was begun on it
        (NEGOTIATES, True, True),
        (Respond(101), True, True),
    ],
)
def test_what_the_answer_to_a_moved_request_says_of_moves(step, stops, is_kept):
    with shim(nonidempotent_max_idle_s=0), reused(step) as (server, pool):
        assert send(server, pool, "POST", redirect=False).error is None
        counted = counters(server)
        assert counted["moved"] == {"idle_setting": 1}
        assert stops_moves(server) is stops
        assert (pooled_connection(pool).sock is not None) is is_kept


def test_a_refused_request_that_left_an_ended_connection_keeps_the_fresh_one():
    """Stock would have opened one as well."""
    with shim(**DEFAULTS), reused(Respond(404)) as (server, pool):
        after_checkout(pool, have(server, CloseAfter()))
        assert send(server, pool, "POST").status == 404
        assert counters(server)["moved"] == {"presend_check": 1}
        assert pooled_connection(pool).sock is not None


def test_a_move_from_an_ended_connection_resumes_no_moves():
    settings = {**DEFAULTS, "nonidempotent_max_idle_s": 0}
    with shim(**settings), reused(Respond(503), Respond(), Respond()) as (server, pool):
        assert [send(server, pool, "POST").status, get(pool)] == [503, 200]
        after_checkout(pool, have(server, CloseAfter()))
        assert send(server, pool, "PUT").status == 200
        assert counters(server)["moved"] == {"idle_setting": 1, "presend_check": 1}
        assert stops_moves(server)


def test_no_other_request_moves_until_the_first_one_is_answered():
    """All of them might meet a limit of the server's, or a server that hangs."""
    later, said = AnswerLater(threading.Event()), []

    def look():
        assert later.came.wait(20)
        said.append((stops_moves(server), counters(server)["knowledge"]["moves_stopped_for_s"]))
        later.told.set()

    with shim(nonidempotent_max_idle_s=0), reused(later) as (server, pool):
        side_by_side([lambda: pool.request("POST", "/"), look])
        said.append((stops_moves(server), counters(server)["knowledge"]["moves_stopped_for_s"]))
    # one that is under way is not shown: who reads it is to see what stopped them for long
    assert said == [(True, 0), (False, 0)]


def test_an_announced_limit_that_is_outlived_moves_three_posts():
    """At any pause within its margin each POST would take a fresh connection, for good."""
    limited = Respond(headers={"Keep-Alive": "timeout=1"})
    settings = {"nonidempotent_max_idle_s": "auto"}
    with shim(**settings), serving(default=limited) as (server, pool):
        # so that the clock of the test counts, on a busy machine, too
        with breaks("TCP_INFO", by=lambda _: None), breaks("limit of a move", by=60.0):
            for _ in range(6):
                assert pool.request("POST", "/").status == 200
                let_pass(pool, 1.1)
        assert len({entry.connection for entry in server.journal}) == 4


def test_without_a_connect_timeout_a_move_is_not_waited_for():
    """Stock: the error comes at once. By the time of the fresh socket the origin swallows SYNs."""
    with shim(**DEFAULTS), reused() as (server, pool):
        answer_no_connect(server)
        pool.timeout = urllib3.Timeout()
        pooled_connection(pool).timeout = None
        reset_after_checkout(server, pool)
        began = monotonic()
        with breaks("limit of a move's connect", by=0.5):
            with pytest.raises(urllib3.exceptions.ProtocolError):
                pool.request("POST", "/", timeout=None)
        assert monotonic() - began < 20


def test_a_moved_request_that_the_callers_deadline_ends_stops_moves(alarm):
    class Deadline(BaseException):
        pass

    with shim(nonidempotent_max_idle_s=0), reused(Silence()) as (server, pool):
        alarm(Deadline())
        with pytest.raises(Deadline):
            pool.request("POST", "/wanted")
        assert stops_moves(server)


class Acceptor(AnswerStep):
    """NTLM's; a message on a connection that it knows is answered with itself."""

    def __init__(self):
        self.contexts = {}

    def answer(self, exchange):
        import spnego

        exchange.process()
        number, challenge = exchange.channel.number, None
        scheme, _, token = exchange.request.headers.get("authorization", "").partition(" ")
        if scheme == "NTLM":
            options = {"protocol": "ntlm", "options": spnego.NegotiateOptions.use_ntlm}
            context = self.contexts.setdefault(number, spnego.server(**options))
            challenge = context.step(base64.b64decode(token))
        if challenge is None and number in self.contexts:
            exchange.respond(200, exchange.request.body)
        else:
            said = "NTLM %s" % base64.b64encode(challenge or b"").decode()
            exchange.respond(401, headers={"WWW-Authenticate": said.strip()})


@pytest.mark.full
def test_messages_stay_on_the_connection_that_ntlm_has_authenticated(tmp_path, monkeypatch):
    """WinRM over HTTP. Any other POST takes a fresh one with this setting."""
    winrm = pytest.importorskip("winrm", reason="needs pywinrm")
    users = tmp_path / "users"
    users.write_text("DOMAIN:user:password\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    settings = {"nonidempotent_max_idle_s": 0, "replay": "idempotent"}
    # of no environment's proxy or certificates
    options = {"proxy": None, "ca_trust_path": None, "message_encryption": "never"}
    options.update(transport="ntlm", username="DOMAIN\\user", password="password")
    with shim(**settings), FaultServer(default=Acceptor()) as server:
        client = winrm.Protocol(server.url, **options)
        for message in (b"<one/>", b"<two/>", b"<three/>"):
            assert client.send_message(message) == message
        client.transport.close_session()
        assert len(server.journal.connections) == 1
