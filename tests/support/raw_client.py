"""A client of one connection, and what it sees the server do to it."""

import contextlib
import http.client
import socket

import pytest

from stalepool_testing import FaultServer, wait_readable
from stalepool_testing.kernel import POLLERR, POLLHUP, POLLIN, POLLRDHUP


class RawClient(contextlib.AbstractContextManager):
    """One connection to a server, without a pool and without a retry."""

    def __init__(self, server, timeout_s=10.0):
        self.sock = server.connect(timeout_s)

    def __exit__(self, *exc_info):
        self.sock.close()

    def send(self, method="GET", path="/", body=b"", **headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def receive(self, method="GET"):
        answer = http.client.HTTPResponse(self.sock, method=method)
        try:
            answer.begin()
            answer.content = answer.read()
        finally:
            answer.close()
        return answer

    def ask(self, method="GET", path="/", body=b"", **headers):
        self.send(method, path, body, **headers)
        return self.receive(method)


@contextlib.contextmanager
def connected(script=(), **options):
    """A fault server with a script, and its only client."""
    with FaultServer(script, **options) as server, RawClient(server) as client:
        yield server, client


def assert_eof(sock):
    assert wait_readable(sock, events=POLLIN | POLLRDHUP) & (POLLERR | POLLHUP) == 0
    assert sock.recv(1) == b""


def assert_reset(sock):
    assert wait_readable(sock, events=0) & POLLERR
    with pytest.raises(ConnectionResetError):
        socket.socket.recv(sock, 1)
