"""A nova-api-like service: eventlet's WSGI server, and keystoneauth1 towards neutron.

``GET /servers/detail`` asks neutron for the ports over a pooled connection,
with keystoneauth1 as it comes: its own keepalive adapter, no retries, no time
limit. Two more paths are for the demo: ``/control/warm`` puts an open
connection into the pool, ``/control/counters`` tells what the shim counted.

Arguments: ``LISTENING_FD NEUTRON_HOST:PORT``.
"""

from __future__ import annotations

from stalepool.cli.demo import green  # isort: skip

import json
import socket
import sys
from typing import Any, Callable, Dict, Iterable, List

import eventlet.wsgi
from keystoneauth1 import adapter, noauth, session

_REASONS = {200: "200 OK", 404: "404 Not Found", 500: "500 Internal Server Error"}


class Nova:
    """The WSGI application."""

    def __init__(self, neutron: str) -> None:
        self._neutron = adapter.Adapter(
            session.Session(auth=noauth.NoAuth(endpoint=f"http://{neutron}")),
            service_type="network",
        )
        self._paths: Dict[str, Callable[[], Any]] = {
            "/servers/detail": self._servers,
            "/control/warm": self._servers,
            "/control/counters": self._counters,
        }

    def __call__(
        self, environ: Dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = self._paths.get(environ["PATH_INFO"])
        try:
            status, data = (404, {}) if path is None else (200, path())
        except Exception as error:  # as nova's own outermost layer does
            status, data = 500, {"computeFault": {"code": 500, "message": str(error)}}
        start_response(_REASONS[status], [("Content-Type", "application/json")])
        return [json.dumps(data).encode()]

    def _servers(self) -> Dict[str, Any]:
        reply = self._neutron.get("/v2.0/ports", params={"device_id": "c0ffee42"})
        return {"servers": [{"id": port["device_id"]} for port in reply.json()["ports"]]}

    @staticmethod
    def _counters() -> Dict[str, Any]:
        return {"shim": green.shim_is_active(), **green.counters()}


def main(arguments: List[str]) -> None:
    """Serve for ever, one green thread for each connection."""
    fd, neutron = arguments
    eventlet.wsgi.server(socket.socket(fileno=int(fd)), Nova(neutron), log=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
