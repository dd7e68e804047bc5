"""The network between nova-api and the load balancer, with faults on command.

A command is one line on stdin, the name of a fault; it strikes every
connection that is open at that moment, once, and no connection that is opened
later. The answer is one line on stdout: ``struck N``, or ``impossible`` and
the reason.

Arguments: ``LISTENING_FD HOST:PORT``.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Callable, Dict, List

from stalepool.cli.demo.follow import follow_parent
from stalepool.cli.demo.processes import to_address
from stalepool.cli.demo.relay import Link, Relay
from stalepool_testing.blackhole import swallow
from stalepool_testing.kernel import unacknowledged_bytes, wait_until

_SURPLUS_408 = (
    b"HTTP/1.1 408 Request Timeout\r\n"
    b"Connection: close\r\nContent-Length: 0\r\nCache-Control: no-cache\r\n\r\n"
)
Fault = Callable[[Link], None]


class Network(Relay):
    """A relay that breaks connections when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._on_arrival: Dict[Link, Fault] = {}
        self._faults: Dict[str, Fault] = {
            "fin-idle": self._close,
            "rst-idle": self._reset,
            "surplus-408": self._write_surplus,
            "fin-on-arrival": lambda link: self._arm(link, self._close),
            "rst-on-arrival": lambda link: self._arm(link, self._reset),
            "black-hole": self._swallow,
        }

    def strike(self, name: str) -> str:
        """Let a fault hit all open links; returns the line to answer with."""
        links = list(self.links)
        try:
            for link in links:
                self._faults[name](link)
        except OSError as error:
            return f"impossible {error.strerror or error}"
        return f"struck {len(links)}"

    def request_arrives(self, link: Link, data: bytes) -> None:
        fault = self._on_arrival.pop(link, None)
        if fault is None:
            super().request_arrives(link, data)
        else:
            fault(link)

    def drop(self, link: Link) -> None:
        self._on_arrival.pop(link, None)
        super().drop(link)

    def _arm(self, link: Link, fault: Fault) -> None:
        self._on_arrival[link] = fault

    def _close(self, link: Link) -> None:
        self.drop(link)

    def _reset(self, link: Link) -> None:
        # Lingering for 0 seconds makes close() send an RST instead of a FIN.
        link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.drop(link)

    def _write_surplus(self, link: Link) -> None:
        link.client.sendall(_SURPLUS_408)

    def _swallow(self, link: Link) -> None:
        # What is still unacknowledged would be sent again, and would look like a
        # sign of life to nova-api's keepalive.
        wait_until(lambda: not unacknowledged_bytes(link.client), "nova-api acknowledges")
        swallow(link.client)


def main(arguments: List[str]) -> None:
    """Relay and obey until stdin ends."""
    fd, upstream = arguments
    network = Network()

    def obey() -> None:
        command = os.read(0, 4096).decode().strip()
        if not command:
            sys.exit(0)
        answer = network.strike(command)
        print(f"{command}: {answer}", file=sys.stderr)
        print(answer, flush=True)

    network.watch(0, obey)
    network.serve(socket.socket(fileno=int(fd)), to_address(upstream))
    network.run()


if __name__ == "__main__":
    follow_parent()
    main(sys.argv[1:])
