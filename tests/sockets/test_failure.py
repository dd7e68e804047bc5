"""The judgement on every fault and kind of socket there is: ``tests.failures`` makes the cells."""

import _socket
import errno
import signal
import socket
import ssl
from http.client import RemoteDisconnected
from time import monotonic

import pytest

import stalepool_testing as testing
from breaks import breaks
from failures import report
from failures.faults import FAULTS, KINDS
from pools import UnknownSocket
from socket_states import KINDS as SOCKETS
from socket_states import STATES
from stalepool.sockets import failure
from stalepool.sockets.layers import layers_of
from stalepool_testing import kernel


@pytest.mark.full
def test_the_judgement_is_right_in_every_cell_and_each_fault_is_noticed(request):
    """One that nothing notices would be right in every cell, and would show nothing."""
    made = report.run()
    cells = made["cells"]
    assert [cell for cell in cells if report.is_wrong(cell)] == []
    kinds = [(kind, version) for kind in report.present() for version in KINDS[kind].made_as]
    wanted = {(*k, fault.name) for k in kinds for fault in FAULTS if fault.is_possible(KINDS[k[0]])}
    noticed = [cell for cell in cells if cell.get("raised", "skipped") != "nothing"]
    missed = wanted - {(cell["kind"], cell["tls"], cell["fault"]) for cell in noticed}
    # eventlet's TLS socket sends nothing, and says nothing, once it was shut down
    assert {case[::2] for case in missed} <= {("eventlet ssl", "own shutdown, for writing")}
    rows = [fault for fault, *_ in report.rows_of([made])]
    assert {cell["fault"] for cell in noticed if "raised" in cell} == set(rows)
    skipped = [cell for cell in cells if "skipped" in cell]
    assert skipped == [] or not request.config.getoption("--require-black-hole")


RESET, TIMEOUT = ConnectionResetError(errno.ECONNRESET, "said so"), socket.timeout("timed out")

#: kind of socket, its state, what the operation raised -> whether the connection has ended, and
#: whether an answer has begun
CASES = [
    ("ipv4", "closed", None, True, False),
    ("ipv4", "reset", RESET, True, False),
    ("ipv4", "healthy", RESET, False, False),  # somebody raised it
    ("ipv4", "healthy", None, False, False),  # SO_RCVTIMEO is over
    ("ipv4", "closed", TIMEOUT, False, False),  # the caller's time is over
    ("ipv4", "closed", KeyError("a header"), False, False),
    ("ipv4", "surplus", RESET, False, True),
    ("unix", "closed", RESET, True, False),  # there is no TCP_INFO
    ("tls1.2", "surplus", RESET, False, True),
    ("tls1.2", "close_notify", RESET, False, False),
    ("tls1.3", "closed", ssl.SSLError(5, "said so"), True, False),
    ("tls1.3", "surplus", RESET, False, True),
    ("tls1.3", "surplus in TLS", RESET, False, True),
    ("tls1.3", "close_notify", None, True, False),
    ("tls1.3", "fatal alert", RESET, False, False),
]


@pytest.mark.parametrize(("kind", "state", "error", "has_ended", "has_begun"), CASES)
def test_what_has_come_of_a_connection(kind, state, error, has_ended, has_begun):
    """Nothing is waited for: without a timeout that would not end."""
    with SOCKETS[kind].make() as pair:
        STATES[state].enter(pair)
        pair.client.settimeout(None)
        assert failure.has_ended(pair.client, error) is has_ended
        assert failure.answer_has_begun(pair.client) is has_begun


@pytest.mark.parametrize("kind", [type("JobTimeout", (OSError,), {}), ConnectionResetError])
def test_a_deadline_that_comes_as_the_connection_ends(kind, alarm):
    """Of a signal handler, in which the FIN has arrived."""
    with testing.eof() as pair:
        alarm(kind("over"), 0.01)
        with pytest.raises(kind) as raised:
            signal.pause()
        assert not failure.has_ended(pair.client, raised.value)


def test_without_a_poll_the_error_says_it():
    with breaks("poll", by=lambda: None), testing.healthy() as pair:
        assert failure.has_ended(pair.client, RESET)
        assert not failure.answer_has_begun(pair.client)


@pytest.mark.parametrize(
    ("kind", "data"),
    [("ipv4", b"\x15\x03\x03\0\2"), ("tls1.3", b"\x17\x03\x03")],
    ids=["without TLS", "less than the head of a record"],
)
def test_what_is_no_alert(kind, data):
    with SOCKETS[kind].make() as pair:
        _socket.socket.send(layers_of(pair.peer).raw, data)
        kernel.wait_readable(pair.client)
        assert failure.answer_has_begun(pair.client)


class OfALibrary(OSError):
    """Not made into a ConnectionError by its number, as a plain OSError is."""


#: errno of an end -> the kernel gave up on a silent peer
ENDS = {
    **dict.fromkeys(("ECONNRESET", "ECONNABORTED", "EPIPE"), False),
    **dict.fromkeys(("ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"), True),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_socket_that_cannot_be_asked_is_judged_by_the_error(name):
    with testing.unread() as pair:
        unknown, error = UnknownSocket(pair.client), OfALibrary(getattr(errno, name), "said so")
        assert failure.has_ended(unknown, error)
        assert failure.has_ended(unknown, RemoteDisconnected("has no number"))
        assert not failure.has_ended(unknown, OfALibrary(errno.EINVAL, "said so"))
        assert not failure.answer_has_begun(unknown)
    assert failure.is_silent_end(error) is ENDS[name]


@pytest.mark.parametrize(
    ("is_one", "error"),
    [
        (True, TIMEOUT),
        (True, socket.timeout("The read operation timed out")),  # a TLS socket's
        (True, ssl.SSLError("timed out")),  # the same in eventlet 0.33
        (False, OSError(errno.ETIMEDOUT, "Connection timed out")),  # the kernel's
        (False, ssl.SSLError(1, "timed out")),
    ],
)
def test_a_timeout_of_the_socket_is_told(is_one, error):
    assert failure.has_run_out(error, monotonic() - 1, limit_s=1.0) is is_one


#: a module that raises a timeout, and its words -> whether it is the socket's
RAISED = [
    ("of_the_application", "read deadline exceeded", True),  # a socket's class of its own
    ("eventlet.hubs.hub", "timed out", True),  # a green socket's own comes by a timer, too
    ("eventlet.hubs.hub", "the caller's deadline", False),
    ("gevent._gevent_chub", "the caller's deadline", False),
]


@pytest.mark.parametrize(("module", "words", "is_one"), RAISED)
def test_a_timer_that_is_late_is_told_by_its_words(module, words, is_one):
    """A thread that does not yield for long delays both, the socket's timeout and the deadline."""
    names = {"__name__": module}
    exec("def throw(error): raise error", names)
    with pytest.raises(socket.timeout) as raised:
        names["throw"](socket.timeout(words))
    assert failure.has_run_out(raised.value, monotonic() - 1, limit_s=1.0) is is_one


def test_a_signal_handler_may_say_the_same_words(alarm):
    alarm(socket.timeout("timed out"))
    with pytest.raises(socket.timeout) as raised:
        signal.pause()
    assert not failure.has_run_out(raised.value, monotonic() - 1, limit_s=1.0)


def test_the_page_of_the_docs_has_every_fault():
    page = (report.ROOT / "docs" / "failures.rst").read_text(encoding="utf-8")
    assert [fault.name for fault in FAULTS if "* - %s\n" % fault.name not in page] == []
