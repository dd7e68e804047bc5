"""The kernel's account of a connection: the fields of TCP_INFO, and what is read off them."""

import socket
from types import SimpleNamespace

import pytest

import stalepool_testing as testing
from breaks import breaks
from socket_states import converse
from stalepool.settings import Settings
from stalepool.sockets import keepalive, layers, tcp_info
from stalepool_testing import kernel


def info_of(pair):
    return tcp_info.ask(layers.layers_of(pair.client))


def wait_until(pair, holds, timeout_s=10):
    """Give the first account of which something holds."""
    kernel.wait_until(lambda: holds(info_of(pair)), "what is waited for", timeout_s)
    return info_of(pair)


def test_when_data_and_when_the_fin_came():
    with testing.healthy() as pair:
        converse(pair)
        wait_until(pair, lambda info: info.last_data_recv_ms >= 100)
        kernel.shutdown(pair.peer, socket.SHUT_WR)
        kernel.wait_readable(pair.client)
        info = info_of(pair)
        assert info.probes == 0
        assert info.last_data_recv_ms - info.last_ack_recv_ms >= 90
        assert 0 < info.rtt_us < 1_000_000


def test_of_another_socket_an_older_kernel_and_a_closed_one_nothing_is_known():
    """Older kernels have a shorter struct tcp_info: the length that came back is looked at."""
    with testing.healthy(family=socket.AF_UNIX) as pair:
        assert info_of(pair) is tcp_info.ask(None) is None
    old = SimpleNamespace(getsockopt=lambda *args: b"\x01" * 8)
    with testing.healthy() as pair:
        with breaks("TCP_INFO's system call", by=old):
            assert info_of(pair) is None
        pair.client.close()
        assert info_of(pair) is None


def test_a_peer_that_has_everything():
    """Acknowledged to the last byte, TLS included; a RST afterwards takes nothing of that back."""
    with testing.tls_healthy() as pair:
        converse(pair)
        pair.client.sendall(b"x" * 1000)
        wait_until(pair, lambda info: info.missing <= 0)
        kernel.reset(pair.peer)
        kernel.wait_readable(pair.client, events=0)
        info = info_of(pair)
        assert info.missing <= 0 and not info.was_closed_by_us


def test_a_peer_that_vanished_before_it_had_everything():
    """``retransmits`` counts the timeouts of one segment, ``bytes_retrans`` what was sent again."""
    with testing.black_hole() as pair:
        pair.client.sendall(b"x" * 1000)
        info = info_of(pair)
        assert info.missing > 0 and info.unacked and not info.retransmits
        info = wait_until(pair, lambda info: info.retransmits)
        assert info.bytes_retrans >= 1000
        assert info.bytes_sent - info.bytes_retrans == info.missing + info.bytes_acked - 1


def test_a_peer_that_does_not_read():
    """It closes its window: what is more than that is ``notsent``, and then probes go out."""
    with testing.healthy() as pair:
        assert info_of(pair).snd_wnd > 0 == info_of(pair).notsent
        pair.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                pair.client.send(b"x" * 65536)
        assert wait_until(pair, lambda info: info.snd_wnd == 0).notsent > 0


@pytest.mark.parametrize("then", ["nothing", "close"])
def test_the_side_that_ended_it(then):
    """Another thread's ``shutdown()`` leaves the state CLOSE, as the peer's RST does."""
    with testing.healthy() as pair:
        converse(pair)
        kernel.shutdown(pair.client, socket.SHUT_RDWR)
        if then == "close":
            pair.peer.close()
            kernel.wait_readable(pair.client, events=0)
        assert info_of(pair).was_closed_by_us


#: our side has sent a FIN: include/net/tcp_states.h
OURS = {"FIN_WAIT1": 4, "FIN_WAIT2": 5, "TIME_WAIT": 6, "LAST_ACK": 9, "CLOSING": 11}
THEIRS = {"ESTABLISHED": 1, "CLOSE": 7, "CLOSE_WAIT": 8}


@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_a_kernel_that_counts_no_bytes_tells_it_by_the_state(name):
    """Linux before 5.4."""
    with testing.healthy() as pair:
        info = info_of(pair)._replace(state={**OURS, **THEIRS}[name], is_whole=False)
    assert info.was_closed_by_us is (name in OURS)


def test_an_answered_probe_shows_in_the_times():
    """An ACK so long after the last data in both directions is of nothing but a probe."""
    with testing.healthy() as pair:
        converse(pair)
        assert not info_of(pair).has_answered_a_probe(1)
        # a probe after a second, the shortest there is
        keepalive.apply_policy(layers.layers_of(pair.client), Settings(keepalive_idle_s=1))
        assert wait_until(pair, lambda info: info.has_answered_a_probe(1)).probes == 0
