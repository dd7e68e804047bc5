"""The table of faults: what happens to a connection, when, and whether it has ended by that."""

import _socket
import contextlib
import importlib
import signal
import socket
import ssl
import threading
from typing import Callable, NamedTuple

from stalepool.sockets.layers import layers_of
from stalepool_testing import kernel, swallow
from stalepool_testing.kernel import POLLERR, POLLHUP, POLLIN, POLLRDHUP, events_on
from stalepool_testing.tls_sockets import say_goodbye

SEND, RECEIVE = "send", "receive"
IDLE, READ = "idle", "read"

#: how long before what comes from elsewhere comes: the client waits by then
SOON_S = 0.02

BROKEN = b"\x17\x03\x03\x00\x20" + b"\0" * 32


class Kind(NamedTuple):
    """One kind of client socket that a urllib3 pool can hold, as far as a failure on it differs.

    ``made_as``: its TLS version, None without -> its name in ``socket_states.KINDS``.
    ``needs``: the library that it is of, and that patches its process if it is a green one.
    ``depth``: how many TLS layers there are. ``shuts_down``: its ``shutdown()`` is the kernel's.
    """

    made_as: dict
    needs: str = "ssl"
    depth: int = 1
    shuts_down: bool = True


PLAIN = {None: "ipv4"}


def _tls(name):
    return {"TLSv" + number: name + number for number in ("1.2", "1.3")}


#: the first word of a green one is its library
KINDS = {
    "socket": Kind(PLAIN),
    "eventlet socket": Kind(PLAIN, "eventlet"),
    "gevent socket": Kind(PLAIN, "gevent"),
    "ssl": Kind(_tls("tls")),
    "eventlet ssl": Kind(_tls("tls"), "eventlet"),
    "gevent ssl": Kind(_tls("tls"), "gevent"),
    "SSLTransport": Kind(_tls("tls-in-tls"), "urllib3", depth=2, shuts_down=False),
    "pyOpenSSL": Kind(_tls("pyopenssl"), "OpenSSL", shuts_down=False),
}


class NotMadeError(Exception):
    """The fault did not reach the client: nothing was shown, and nothing is judged."""


class Scene:
    """One connection, and the two ends of it.

    :param side: the operation that is to meet the fault, ``send`` or ``receive``.
    :ivar under: the peer's socket below the inner TLS, if there are two layers.
    """

    def __init__(self, kind, version, side):
        from socket_states import KINDS, below

        self.kind = kind
        self.pair = KINDS[kind.made_as[version]].make(2)
        self.client, self.peer = self.pair
        self.raw = layers_of(self.client).raw
        self.under = below(self.peer)
        self.side = side
        self.undo = []
        self.client.settimeout(5)
        self.under.settimeout(5)
        # what no one reads soon fills them
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        self.under.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)

    def close(self):
        for undo in self.undo:
            undo()
        for end in self.pair:
            with contextlib.suppress(Exception):
                end.close()

    def send_broken(self, end):
        """Send a record that no key fits, of the innermost TLS, from one end of the two."""
        if self.kind.depth == 1:
            _socket.socket.send(layers_of(end).raw, BROKEN)
        else:
            end.socket.sendall(BROKEN)

    def wait(self, events):
        """Wait until ``poll`` shows one of these on the client's socket."""
        wait_until(lambda: bool(events_on(self.raw) & events))

    def settle(self):
        """Wait for the RST that what was just sent has drawn, where the peer is gone."""
        if self.under.fileno() < 0 <= self.raw.fileno():
            self.wait(POLLHUP)


def shown_on(raw):
    """What ``poll(0)`` shows on a socket, nothing on one that is closed. Reads nothing."""
    events = 0 if raw.fileno() < 0 else events_on(raw)
    bits = {"IN": POLLIN, "RDHUP": POLLRDHUP, "HUP": POLLHUP, "ERR": POLLERR}
    return " ".join(name for name, bit in bits.items() if events & bit) or "nothing"


def wait_until(check):
    """Look for 5 s.

    :raises NotMadeError: it does not hold in time.
    """
    try:
        kernel.wait_until(check, "the fault at the client")
    except TimeoutError as error:
        raise NotMadeError(str(error)) from error


# -- what the peer does ---------------------------------------------------------------------------


def _fin(scene):
    scene.under.close()
    scene.wait(POLLRDHUP)


def _rst(scene):
    kernel.reset(scene.under)
    scene.wait(POLLHUP)


def _half_a_head(scene):
    scene.peer.sendall(b"HTTP/1.1 2")
    scene.wait(POLLIN)


def _close_notify(scene):
    if scene.kind.depth == 1:
        say_goodbye(scene.peer)
    else:
        scene.peer.say_goodbye()
    scene.wait(POLLIN)


def _fatal_alert(scene):
    """The client says garbage, so OpenSSL gives up with bad_record_mac."""
    scene.send_broken(scene.client)
    with contextlib.suppress(ssl.SSLError):
        scene.peer.recv(1)
    scene.wait(POLLIN)


def _broken_record(scene):
    scene.send_broken(scene.peer)
    scene.wait(POLLIN)


def _in_turn(*acts):
    return lambda scene: [act(scene) for act in acts] and None


def _black_hole(scene):
    swallow(scene.under)
    scene.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
    scene.undo.append(lambda: kernel.reset(scene.under))  # or both kernels go on retransmitting


# -- what comes from our own side -----------------------------------------------------------------


class Alarm(Exception):
    """Raised by a signal handler: nothing that a socket raises."""


def _timeout(scene):
    scene.client.settimeout(SOON_S)


def _alarm(scene):
    """A signal handler's exception; in a green thread its library's Timeout, which is its like."""
    if scene.kind.needs in ("eventlet", "gevent"):
        timeout = importlib.import_module(scene.kind.needs).Timeout(SOON_S)
        if not timeout.pending:  # eventlet's has begun, gevent's has not
            timeout.start()
        scene.undo.append(timeout.cancel)
        return

    def handler(signum, frame):
        raise Alarm("from a signal handler")

    scene.undo.append(lambda: signal.setitimer(signal.ITIMER_REAL, 0))
    scene.undo.append(lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL))
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, SOON_S)


def _shut_down(how, then: Callable = _in_turn()):
    """By another thread, once the client waits for its answer; between two sends at once."""

    def act(scene):
        def shutdown():
            (scene.client if scene.kind.shuts_down else scene.raw).shutdown(how)
            then(scene)

        if scene.side == SEND:
            return shutdown()
        timer = threading.Timer(SOON_S, shutdown)
        timer.start()
        scene.undo.append(timer.join)

    return act


def _reset_once_it_has_our_fin(scene):
    ask = _socket.socket.getsockopt
    # FIN_WAIT2
    wait_until(lambda: ask(scene.raw, socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\5")
    _rst(scene)


#: no answer has begun; one has; a TLS alert lies unread, which is none, but through two layers of
#: TLS it cannot be told from one, and a request is rather not sent again
NO, YES, ALERT = "no", "yes", "alert"


class Fault(NamedTuple):
    """One fault.

    ``ended``: the connection has ended, and not by our own side, and the error is of that: what is
    right to judge, whatever is raised. ``begun``: what has begun where a send fails.
    ``when``: before the request is sent, or once the peer has read its head.
    ``blocks``: the operation has to wait for the fault: a send is larger than the buffers.
    ``then``: what happens between the failure and the question.
    """

    name: str
    act: Callable
    ended: bool
    when: str = READ
    begun: str = NO
    needs_tls: bool = False
    blocks: bool = False
    then: Callable = _in_turn()
    sides: tuple = (SEND, RECEIVE)

    def is_possible(self, kind):
        return None not in kind.made_as or not self.needs_tls

    def has_begun(self, kind):
        return self.begun == YES or (self.begun == ALERT and kind.depth > 1)


BOTH_WAYS = socket.SHUT_RDWR
FAULTS = (
    Fault("FIN while idle, then sent", _fin, True, IDLE),
    Fault("RST while idle, then sent", _rst, True, IDLE),
    Fault("FIN after reading", _fin, True),
    Fault("RST after reading", _rst, True),
    Fault("FIN in the answer's head", _in_turn(_half_a_head, _fin), True, begun=YES),
    Fault("RST in the answer's head", _in_turn(_half_a_head, _rst), True, begun=YES),
    Fault("close_notify, no FIN", _close_notify, True, needs_tls=True, begun=ALERT),
    Fault("close_notify, FIN", _in_turn(_close_notify, _fin), True, needs_tls=True, begun=ALERT),
    Fault("fatal alert, no FIN", _fatal_alert, False, needs_tls=True, begun=ALERT),
    Fault("fatal alert, FIN", _in_turn(_fatal_alert, _fin), True, needs_tls=True, begun=ALERT),
    Fault("broken record, no FIN", _broken_record, False, needs_tls=True, begun=YES),
    Fault("black hole, user timeout", _black_hole, True, IDLE, blocks=True),
    Fault("the caller's timeout", _timeout, False, blocks=True),
    Fault("the caller's timeout, then FIN", _timeout, False, blocks=True, then=_fin),
    Fault("a signal handler's exception", _alarm, False, blocks=True),
    Fault("a signal handler's exception, then FIN", _alarm, False, blocks=True, then=_fin),
    Fault("own shutdown, both ways", _shut_down(BOTH_WAYS), False),
    Fault("own shutdown, peer closes", _shut_down(BOTH_WAYS, _fin), False),
    Fault("own shutdown, peer resets", _shut_down(BOTH_WAYS, _reset_once_it_has_our_fin), False),
    Fault("own shutdown, for reading", _shut_down(socket.SHUT_RD), False, sides=(RECEIVE,)),
    Fault("own shutdown, for writing", _shut_down(socket.SHUT_WR), False, sides=(SEND,)),
    Fault("own close", lambda scene: scene.client.close(), False, sides=(SEND,)),
)
