"""The kernel's account of a connection: the fields of TCP_INFO, and what is read off them."""

from __future__ import annotations

import socket

import pytest

import stalepool_testing as testing
from breaks import breaks
from socket_states import arm_keepalive, converse
from stalepool.sockets import layers, tcp_info
from stalepool_testing import kernel


def test_tcp_info_tells_when_data_and_when_the_fin_came():
    with testing.healthy() as pair:
        converse(pair)
        taken_apart = layers.layers_of(pair.client)
        kernel.wait_until(
            lambda: tcp_info.ask(taken_apart).last_data_recv_ms >= 100, "a tenth of a second"
        )
        kernel.shutdown(pair.peer, socket.SHUT_WR)
        kernel.wait_readable(pair.client)
        info = tcp_info.ask(taken_apart)

        assert info.probes == 0
        assert info.last_data_recv_ms - info.last_ack_recv_ms >= 90
        assert 0 < info.rtt_us < 1_000_000


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_of_another_socket_and_of_a_closed_one_nothing_is_known(family):
    with testing.healthy(family=family) as pair:
        taken_apart = layers.layers_of(pair.client)
        if family == socket.AF_INET:
            pair.client.close()
        assert tcp_info.ask(taken_apart) is tcp_info.ask(None) is None


@pytest.mark.parametrize("answer", [b"", b"\x01" * 8])
def test_a_kernel_that_tells_less(answer):
    """Older kernels have a shorter struct tcp_info: the length that came back is looked at."""

    class Old:
        @staticmethod
        def getsockopt(*args):
            return answer

    with testing.healthy() as pair, breaks("TCP_INFO's system call", by=Old):
        assert tcp_info.ask(layers.layers_of(pair.client)) is None


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_a_peer_that_has_everything(is_tls):
    """Acknowledged to the last byte; a RST afterwards takes nothing of that back."""
    with testing.tls_healthy() if is_tls else testing.healthy() as pair:
        converse(pair)
        taken_apart = layers.layers_of(pair.client)
        pair.client.sendall(b"x" * 1000)
        kernel.wait_until(lambda: tcp_info.ask(taken_apart).missing <= 0, "an acknowledgement")
        kernel.reset(pair.peer)
        kernel.wait_readable(pair.client, events=0)
        info = tcp_info.ask(taken_apart)
        assert info.missing <= 0 and not info.was_closed_by_us


def test_a_peer_that_vanished_before_it_had_everything():
    """``retransmits`` counts the timeouts of one segment, ``bytes_retrans`` what was sent again."""
    with testing.black_hole() as pair:
        taken_apart = layers.layers_of(pair.client)
        assert tcp_info.ask(taken_apart).retransmits == 0
        pair.client.sendall(b"x" * 1000)
        info = tcp_info.ask(taken_apart)
        assert info.missing > 0
        assert info.unacked
        kernel.wait_until(lambda: tcp_info.ask(taken_apart).retransmits, "a retransmission", 10)
        info = tcp_info.ask(taken_apart)
        assert info.bytes_retrans >= 1000
        assert info.bytes_sent - info.bytes_retrans == info.missing + info.bytes_acked - 1


def test_a_peer_that_does_not_read():
    """It closes its window: what is more than that is ``notsent``, and then probes go out."""
    with testing.healthy() as pair:
        taken_apart = layers.layers_of(pair.client)
        assert tcp_info.ask(taken_apart).snd_wnd > 0
        assert tcp_info.ask(taken_apart).notsent == 0
        pair.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                pair.client.send(b"x" * 65536)
        kernel.wait_until(lambda: tcp_info.ask(taken_apart).snd_wnd == 0, "a closed window", 10)
        assert tcp_info.ask(taken_apart).notsent > 0


@pytest.mark.parametrize("then", ["nothing", "close"])
def test_the_side_that_ended_it(then):
    """Another thread's ``shutdown()`` leaves the state CLOSE, as the peer's RST does."""
    with testing.healthy() as pair:
        converse(pair)
        kernel.shutdown(pair.client, socket.SHUT_RDWR)
        if then == "close":
            pair.peer.close()
            kernel.wait_readable(pair.client, events=0)
        assert tcp_info.ask(layers.layers_of(pair.client)).was_closed_by_us


#: our side has sent a FIN: include/net/tcp_states.h
OURS = {"FIN_WAIT1": 4, "FIN_WAIT2": 5, "TIME_WAIT": 6, "LAST_ACK": 9, "CLOSING": 11}
THEIRS = {"ESTABLISHED": 1, "CLOSE": 7, "CLOSE_WAIT": 8}


@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_a_kernel_that_counts_no_bytes_tells_it_by_the_state(name):
    """Linux before 5.4."""
    with testing.healthy() as pair:
        info = tcp_info.ask(layers.layers_of(pair.client))
    info = info._replace(state={**OURS, **THEIRS}[name], is_whole=False)
    assert info.was_closed_by_us is (name in OURS)


def test_an_answered_probe_shows_in_the_times():
    """An ACK so long after the last data in both directions is of nothing but a probe."""
    with testing.healthy() as pair:
        converse(pair)
        taken_apart = layers.layers_of(pair.client)
        assert not tcp_info.ask(taken_apart).has_answered_a_probe(1)
        arm_keepalive(pair.client, count=9)
        kernel.wait_until(
            lambda: tcp_info.ask(taken_apart).has_answered_a_probe(1), "an answered probe", 10
        )
        assert tcp_info.ask(taken_apart).probes == 0
