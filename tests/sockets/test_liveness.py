"""The liveness of a socket: every kind in every state, with every timeout, has its verdict.

That asking does not block needs no clock: with a timeout of None one that waits never comes back.
Green sockets are in ``test_checkout_never_yields``.
"""

import errno
import os
import socket
from itertools import product
from types import SimpleNamespace

import pytest

import socket_states
import stalepool_testing as testing
from socket_states import KINDS, STATES, is_possible, look, peek, verdict_on
from stalepool.sockets import layers, liveness
from stalepool.sockets.verdict import Action, Verdict
from stalepool_testing import kernel

#: what reading through TLS fails with, while a whole record is there -> the verdict
READ_FAILS_WITH = {
    **dict.fromkeys(("ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"), Verdict.TIMED_OUT),
    **dict.fromkeys(("ECONNRESET", "EPIPE"), Verdict.RESET),
    **dict.fromkeys(("ENOTCONN", "EIO"), Verdict.CLOSED),
    "EBADF": Verdict.NO_SOCKET,
}


@pytest.mark.parametrize("name", READ_FAILS_WITH)
def test_what_the_kernel_holds_against_a_tls_socket(name):
    def judge_by_read():
        raise OSError(getattr(errno, name), "said so")

    with testing.late_ticket() as pair:
        taken_apart = layers.layers_of(pair.client)._replace(judge_by_read=judge_by_read)
        verdict = liveness.examine(taken_apart, liveness.poller(taken_apart.raw))
        assert verdict is READ_FAILS_WITH[name]


#: what a whole TLS 1.3 record is, only a read tells, and audit does not read; a close_notify shows
#: by its length
NOT_TOLD_FROM_OUTSIDE = ("surplus", "late ticket", "late ticket, surplus", "broken record")

CASES = [
    pytest.param(kind, state, timeout, mode, id="%s-%s-%s-%s" % (kind, state, timeout, mode))
    for mode, kind, state, timeout in product(("active", "audit"), KINDS, STATES, (None, 0, 1.0))
    if is_possible(KINDS[kind], STATES[state])
    # with a timeout CPython waits before it receives: where one must do, it is that
    and (timeout or not (STATES[state].is_slow or mode == "audit"))
]


def parts(kind, state, timeout, mode):
    return {timeout, *((part, mode) for part in socket_states.parts_of(kind, state))}


@pytest.mark.each_value(by=parts)
@pytest.mark.parametrize("kind, state, timeout, mode", CASES)
def test_verdict(kind, state, timeout, mode):
    found = look(KINDS[kind], STATES[state], timeout, may_consume=mode == "active")
    verdict, consumed, timeouts_changed = found

    is_told = mode == "active" or state not in NOT_TOLD_FROM_OUTSIDE
    is_told = is_told or KINDS[kind].tls != "TLSv1.3"
    assert verdict == (verdict_on(kind, state).value if is_told else "unknown")
    assert not timeouts_changed
    assert not consumed or (mode == "active" and socket_states.may_consume(kind, state))


def test_what_cannot_be_asked():
    with testing.healthy() as pair, socket.socket() as unconnected:
        assert peek(unconnected) is Verdict.CLOSED
        taken_apart = layers.layers_of(pair.client)
        poll = liveness.poller(taken_apart.raw)
        os.close(pair.client.detach())
        assert liveness.examine(taken_apart, poll) is Verdict.NO_SOCKET
        assert peek(pair.client) is Verdict.UNKNOWN
        assert liveness.events_now(taken_apart.raw) is None


@pytest.mark.parametrize("timeout_s", [None, 0.05])
def test_readable_and_yet_nothing_there(timeout_s):
    """Another thread has read it, on a connection that is in use: no pool hands that out.

    urllib3 also discards what its own check has once found readable.
    """
    with testing.healthy() as pair:
        pair.client.settimeout(timeout_s)
        said = [(pair.client.fileno(), kernel.POLLIN)]
        poll = SimpleNamespace(poll=lambda timeout_ms: said)
        assert liveness.examine(layers.layers_of(pair.client), poll).action is Action.DISCARD


def test_what_comes_behind_a_ticket():
    """A read has found the record harmless; meanwhile something else has arrived."""
    with testing.late_ticket() as pair:
        taken_apart = layers.layers_of(pair.client)
        judge_by_read = taken_apart.judge_by_read

        def read_and_be_late():
            found = judge_by_read()
            pair.peer.sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            kernel.wait_readable(pair.client)
            return found

        taken_apart = taken_apart._replace(judge_by_read=read_and_be_late)
        assert liveness.examine(taken_apart, liveness.poller(taken_apart.raw)) is Verdict.UNREAD
