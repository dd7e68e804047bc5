"""Real TLS connections, in every state in which a pooled connection can be found.

They are as in :mod:`~stalepool_testing.sockets`, and both ends are ``ssl.SSLSocket``. Unless a
function says otherwise, the server has sent no session ticket, so an idle connection is silent.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import subprocess

from stalepool_testing import kernel
from stalepool_testing.kernel import POLLIN, Unavailable
from stalepool_testing.sockets import REQUEST_TIMEOUT, Pair, await_delivery, healthy
from stalepool_testing.tls import TLS

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def tls_healthy(*, version: str = "TLSv1.3", family: int = socket.AF_INET) -> Pair:
    """An idle TLS connection, silent on both ends, with nothing in the TLS layer.

    :param version: ``"TLSv1.2"`` or ``"TLSv1.3"``.
    :param family: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX``.
    :raises ImportError: trustme is not installed.
    """
    return _handshake(TLS(version), family)


def close_notify(
    *, version: str = "TLSv1.3", family: int = socket.AF_INET, fin: bool = False
) -> Pair:
    """The peer has ended the TLS session; the alert lies unread, the TCP connection is open.

    :param fin: the peer has closed the TCP connection too, as most servers do.
    """
    pair = tls_healthy(version=version, family=family)
    say_goodbye(pair.peer)
    kernel.wait_readable(pair.client)
    if fin:
        pair.peer.close()
        kernel.wait_readable(pair.client, events=kernel.POLLRDHUP or POLLIN)
    return pair


def late_ticket(*, family: int = socket.AF_INET, num_tickets: int = 2) -> Pair:
    """A *healthy* TLS 1.3 connection that is readable: session tickets came after the handshake.

    Poll shows bytes, and none of them is application data.
    """
    pair = _handshake(TLS("TLSv1.3", num_tickets=num_tickets), family)
    await_delivery(pair)
    return pair


def surplus_in_tls(
    *,
    version: str = "TLSv1.3",
    family: int = socket.AF_INET,
    answer: bytes = ANSWER,
    surplus: bytes = REQUEST_TIMEOUT,
) -> Pair:
    """A surplus answer inside the TLS layer: ``pending()`` is above 0, poll and peek see nothing.

    The peer has sent ``answer`` and ``surplus`` in one TLS record; the client has read the first.
    """
    pair = tls_healthy(version=version, family=family)
    pair.peer.sendall(answer + surplus)
    kernel.wait_readable(pair.client)
    received = pair.client.recv(len(answer))
    assert received == answer, received
    return pair


def tls_unread(
    data: bytes = REQUEST_TIMEOUT, *, version: str = "TLSv1.3", family: int = socket.AF_INET
) -> Pair:
    """Application data that answers no request lies in the kernel, still encrypted."""
    pair = tls_healthy(version=version, family=family)
    pair.peer.sendall(data)
    await_delivery(pair)
    return pair


def key_update() -> Pair:
    """A *healthy* TLS 1.3 connection that is readable: the peer has changed its key.

    The peer is a child process, ``openssl s_server``, and ``pair.peer`` is its terminal: lines sent
    to it reach the client, and what the client sends can be read from it, among the server's own
    messages. Closing the pair ends the process. IPv4 only.

    :raises Unavailable: there is no openssl command, or it does not do what is needed.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise Unavailable("a KeyUpdate needs the openssl command, which is not on PATH")
    tls = TLS("TLSv1.3")
    terminal, far_end = socket.socketpair()
    command = [openssl, "s_server", "-4", "-accept", "127.0.0.1:0", "-naccept", "1"]
    command += ["-cert", tls.cert_path, "-key", tls.cert_path, "-tls1_3", "-num_tickets", "0"]
    with far_end:
        child = subprocess.Popen(
            command, stdin=far_end.fileno(), stdout=far_end.fileno(), stderr=subprocess.STDOUT
        )

    def end_child() -> None:
        terminal.close()
        child.terminate()
        child.wait(10)

    with contextlib.ExitStack() as stack:
        stack.callback(end_child)
        port = int(_read_until(terminal, rb"ACCEPT [^\n]*:(\d+)\n").group(1))
        client = tls.wrap_client(socket.create_connection(("127.0.0.1", port), timeout=10))
        stack.enter_context(client)
        client.do_handshake()
        _read_until(terminal, rb"Shared ciphers|CIPHER is")
        terminal.sendall(b"k\n")  # s_server's command for SSL_key_update()
        kernel.wait_readable(client)
        client.settimeout(None)
        stack.pop_all()
    return Pair(client, terminal, end_child)


def say_goodbye(sock: socket.socket) -> None:
    """Send a close_notify, and do not wait for the peer's; does nothing to a plain socket."""
    if not isinstance(sock, ssl.SSLSocket):
        return
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        sock.unwrap()
    except (OSError, ValueError):
        pass  # it is sent; the peer's has not come, or the peer is gone
    sock.setblocking(True)
    sock.settimeout(timeout)


def _handshake(tls: TLS, family: int) -> Pair:
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(healthy(family=family))
        client = stack.enter_context(tls.wrap_client(plain.client))
        peer = stack.enter_context(tls.wrap_server(plain.peer))
        _shake_hands(client, peer)
        stack.pop_all()
    return Pair(client, peer)


def _shake_hands(*ends: ssl.SSLSocket) -> None:
    # both ends in turn, in this thread: works the same under any monkey patch
    waiting = list(ends)
    for end in ends:
        end.setblocking(False)

    def advance() -> bool:
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            waiting.remove(end)
        return not waiting

    kernel.wait_until(advance, "TLS handshake", timeout_s=10.0)
    for end in ends:
        end.setblocking(True)


def _read_until(terminal: socket.socket, pattern: bytes) -> re.Match[bytes]:
    terminal.settimeout(10)
    said = b""
    while True:
        found = re.search(pattern, said)
        if found:
            return found
        try:
            more = terminal.recv(65536)
        except OSError as error:
            raise Unavailable(f"openssl s_server did not get ready: {said!r}") from error
        if not more:
            raise Unavailable(f"openssl s_server gave up: {said!r}")
        said += more
