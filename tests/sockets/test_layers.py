"""Sockets taken apart: what the kernel knows them by, and what their TLS layer holds back."""

import ctypes
import os
import resource
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

import stalepool_testing as testing
from breaks import raises
from socket_states import KINDS, STATES
from stalepool.sockets import layers
from stalepool.sockets.verdict import Verdict
from stalepool_testing import TLS


def test_what_tls_in_tls_has_not_even_decrypted():
    """It reads whole records of the outer layer; inner ones wait in a buffer of its own."""
    with KINDS["tls-in-tls1.3"].make() as pair:
        pair.peer.send_records(b"answer", b"surplus")
        assert pair.client.recv(100) == b"answer"
        assert pair.client.sslobj.pending() == 0
        assert layers.layers_of(pair.client).pending() > 0


@pytest.mark.parametrize("kind", ["tls1.3", "pyopenssl1.3"])
def test_a_read_through_tls_does_not_wait(kind):
    with KINDS[kind].make() as pair:
        pair.client.settimeout(None)
        judge_by_read = layers.layers_of(pair.client).judge_by_read
        assert judge_by_read() is Verdict.ALIVE
        STATES["close_notify"].enter(pair)
        assert judge_by_read() is Verdict.CLOSED


#: where wrappers are from, and the attribute with what is inside
INSIDE = {
    **{"eventlet.greenio.base": "fd", "gevent._socketcommon": "_sock"},
    **{"urllib3.contrib.pyopenssl": "socket", "urllib3.util.ssltransport": "socket"},
}


@pytest.mark.parametrize("module", INSIDE)
def test_a_wrapper_of_what_is_not_known_is_not_known(module):
    """Real green ones are in ``test_checkout_never_yields``."""
    wrapper = type("Wrapper", (), {"__module__": module, INSIDE[module]: None})()
    assert layers.layers_of(wrapper) is None
    if not module.startswith("urllib3"):
        with socket.socket() as sock:
            setattr(wrapper, INSIDE[module], sock)
            assert layers.layers_of(wrapper) == layers.Layers(sock)


def test_a_subclass_is_a_socket_and_a_datagram_socket_is_not_tcp():
    class Sub(socket.socket):
        pass

    with Sub(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        taken_apart = layers.layers_of(sock)
        assert taken_apart.raw is sock and not taken_apart.is_tcp


def test_tls_before_its_handshake_is_a_plain_socket():
    context = TLS().client_context
    with socket.socket() as bare, context.wrap_socket(bare, server_hostname="localhost") as wrapped:
        assert layers.layers_of(wrapped) == layers.Layers(wrapped)


def test_what_is_not_known_is_none():
    """A mock may claim to be a socket; a TLS layer may hold back data, and cannot be asked."""
    with type("Own", (socket.socket,), {"_sslobj": object()})() as own:
        for thing in (None, Mock(spec=socket.socket), own):
            assert layers.layers_of(thing) is None


@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
def test_an_error_of_one_tls_connection_is_not_met_on_another(kind):
    """CPython 3.13 with OpenSSL 3.5 leaves a failed send in the thread's error queue."""
    with KINDS[kind].make() as dead, KINDS[kind].make() as alive:
        STATES["reset"].enter(dead)
        with pytest.raises(OSError) as raised:
            for _ in range(3):  # the first may be taken by a kernel that has not looked yet
                dead.client.sendall(b"x")
        layers.clear_tls_errors(dead.client, raised.value)
        alive.client.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            alive.client.recv(1)


def test_where_there_is_no_tls_there_are_no_errors_of_it(monkeypatch):
    """Nothing of OpenSSL's is made, and nothing asked of it where it is not loaded."""
    monkeypatch.setattr("_ssl._SSLContext", lambda *args: pytest.fail("made"))
    detached_by_gevent = type("Socket", (), {"__getattr__": raises})()
    layers.clear_tls_errors(detached_by_gevent, ConnectionResetError())
    with testing.healthy() as pair:
        layers.clear_tls_errors(pair.client, ConnectionResetError())
        monkeypatch.setitem(sys.modules, "_ssl", None)
        layers.clear_tls_errors(pair.client, ConnectionResetError())


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes a network namespace")
def test_the_network_namespace_of_a_socket():
    """That of the thread may be another one."""

    def ask():
        assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET, linux/sched.h
        with socket.socket() as of_there:
            return [layers.is_in_this_namespace(each) for each in (of_there, of_here)]

    with socket.socket() as of_here, ThreadPoolExecutor() as executor:
        assert layers.is_in_this_namespace(of_here)
        assert executor.submit(ask).result() == [True, False]


def test_a_socket_that_does_not_tell_its_network_namespace():
    """As no socket does before Linux 5.14, or where no descriptor is left to ask another."""
    with socket.socket() as closed:
        pass
    assert layers.is_in_this_namespace(closed)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as sock:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            assert layers.is_in_this_namespace(sock)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
