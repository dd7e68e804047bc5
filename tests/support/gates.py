"""A relay on one port that is shut and opened at will, as a load balancer that is restarted."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, List, Tuple

from stalepool_testing import kernel
from stalepool_testing.sockets import loopback


class Gate:
    """Hands every connection on to a server. Shut, its port refuses; it opens on the same port.

    Native threads, one per connection: for a green client it stays in the parent process.

    :param server: whatever has a ``host`` and a ``port``; its requests are in its own journal.
    :ivar accepted: how many connections it has taken.
    :ivar resets: True has it reset each connection at its first byte: a handshake, say.
    """

    def __init__(self, server: Any, family: int = socket.AF_INET) -> None:
        self.family, self.host, self.port = family, loopback(family), 0
        self.accepted, self.resets = 0, False
        self.listener: Any = None
        self._server = server
        self._relayed: List[Tuple[threading.Thread, socket.socket, socket.socket]] = []
        self.open()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shut()

    @property
    def url(self) -> str:
        return "http://%s:%d/" % (self.host, self.port)

    def open(self) -> None:
        """Listen. Does nothing if it is open."""
        if self.listener is None:
            self.listener = socket.socket(self.family, socket.SOCK_STREAM)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind((self.host, self.port))
            self.listener.listen(128)
            self.port = self.listener.getsockname()[1]
            self._acceptor = _started(self._accept_all, self.listener)

    def shut(self) -> None:
        """Refuse from now on, and close all there is. Does nothing to what is shut."""
        self.stop_listening()
        for thread, *ends in self._relayed:
            for end in ends:
                with contextlib.suppress(OSError):  # it has ended by itself
                    kernel.shutdown(end, socket.SHUT_RDWR)
            thread.join()
        self._relayed.clear()

    def stop_listening(self) -> None:
        """Refuse from now on; what is connected lives on."""
        listener, self.listener = self.listener, None
        if listener is not None:
            kernel.shutdown(listener, socket.SHUT_RDWR)  # wakes accept(), refuses at once
            self._acceptor.join()

    def _accept_all(self, listener: socket.socket) -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.accepted += 1
                server = socket.create_connection((self._server.host, self._server.port))
                self._relayed.append((_started(self._relay, client, server), client, server))

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        onward = {client.fileno(): (client, server), server.fileno(): (server, client)}
        with client, server, contextlib.suppress(OSError):
            while True:
                for descriptor in kernel.wait(dict.fromkeys(onward, kernel.POLLIN)):
                    source, target = onward[descriptor]
                    if self.resets:
                        kernel.reset(client)
                        return
                    data = source.recv(65536)
                    if not data:
                        return
                    target.sendall(data)


def _started(target: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread
