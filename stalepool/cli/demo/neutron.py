"""A neutron-like API: lists ports, and asks nova-api when a port is updated.

Arguments: ``LISTENING_FD NOVA_HOST:PORT``.
"""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import sys
from typing import List

from stalepool.cli.demo.calls import call
from stalepool.cli.demo.follow import follow_parent
from stalepool.cli.demo.processes import Address, to_address

_PORTS = {"ports": [{"id": "8f0f6c7e", "device_id": "c0ffee42", "status": "ACTIVE"}]}


class Neutron(http.server.ThreadingHTTPServer):
    """Serves the socket it is handed, one thread for each connection."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, nova: Address) -> None:
        super().__init__(("127.0.0.1", 0), Api, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.nova = nova

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a connection that broke in one line."""
        print(f"{client_address}: {sys.exc_info()[1]}", file=sys.stderr)


class Api(http.server.BaseHTTPRequestHandler):
    """``GET /v2.0/ports`` and ``PUT /v2.0/ports/ID``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body in one segment
    server: Neutron

    def do_GET(self) -> None:
        """List the ports of a server."""
        self._answer(200, json.dumps(_PORTS))

    def do_PUT(self) -> None:
        """Update a port: whose it is, nova-api must say."""
        try:
            reply = call("GET", self.server.nova, "/servers/detail")
        except (OSError, http.client.HTTPException) as error:
            self._answer(502, f"nova-api: {error}")
        else:
            self._answer(reply.status, reply.body)

    def _answer(self, status: int, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main(arguments: List[str]) -> None:
    """Serve for ever."""
    fd, nova = arguments
    Neutron(socket.socket(fileno=int(fd)), to_address(nova)).serve_forever()


if __name__ == "__main__":
    follow_parent()
    main(sys.argv[1:])
