"""A connection that has answered, and what comes of the next request on it.

Uses the public names of stalepool alone.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Iterator, Optional, Tuple

import urllib3

import stalepool
from stalepool_testing import TLS, FaultServer, Respond
from stalepool_testing.wire import Ended

TIMEOUT_S = 20.0


class Server(FaultServer):
    """A fault server that can stop listening, and keeps its port from everybody else."""

    _kept: Optional[socket.socket] = None

    def stop_listening(self) -> None:
        """No new connection is accepted from now on; those that stand go on."""
        self._doorbell.tell(_end)
        self._acceptor.join(10)
        self._kept = socket.socket(self.family, socket.SOCK_STREAM)
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(self._address)
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # nor is it shared

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._kept is not None:
                self._kept.close()


def _end() -> None:
    raise Ended


@contextlib.contextmanager
def stock() -> Iterator[None]:
    stalepool.uninstall()
    try:
        yield
    finally:
        stalepool.install()


@contextlib.contextmanager
def primed(
    *script: Any, tls: Optional[TLS] = None, path: str = "/prime", **options: Any
) -> Iterator[Tuple[Server, Any]]:
    """A server whose script meets what comes next on a connection that has answered."""
    options = {"maxsize": 1, "retries": False, "timeout": TIMEOUT_S, **options}
    buffer = options.pop("receive_buffer", None)
    with Server([Respond(), *script], tls=tls, receive_buffer=buffer) as server:
        make: Any = urllib3.HTTPConnectionPool
        if tls is not None:
            make, options["ca_certs"] = urllib3.HTTPSConnectionPool, tls.ca_path
        with make(server.host, server.port, **options) as pool:
            assert pool.request("GET", path).status == 200
            yield server, pool


def asked(server: FaultServer) -> int:
    """How often the request under test came to the server."""
    return server.journal.count(path="/wanted")


def outcome(pool: Any, method: str, **options: Any) -> Any:
    """The status of the answer, or the names of the error's class and of its cause's."""
    try:
        return pool.request(method, "/wanted", **options).status
    except Exception as error:
        links = [error, error.__cause__ or error.__context__]
        return [type(link).__name__ for link in links if link is not None]
