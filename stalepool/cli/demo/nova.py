"""nova-api as a process: eventlet's WSGI server, and keystoneauth1 towards neutron.

``GET /servers/detail`` asks neutron for the ports over a pooled connection, with keystoneauth1 as
it comes: its own keepalive adapter, no retries, no time limit. The paths under ``/demo/`` are for
the demo.
"""

from __future__ import annotations

from stalepool.cli.demo import green  # isort: skip

import json
import socket
import sys
from typing import Any, Callable, Dict, Iterable, List

import eventlet.wsgi
from eventlet import hubs
from keystoneauth1 import adapter, noauth, session

from stalepool.cli.demo import worker


class Nova:
    """The WSGI application.

    :param neutron: its URL.
    """

    def __init__(self, neutron: str) -> None:
        self._neutron = adapter.Adapter(
            session.Session(auth=noauth.NoAuth(endpoint=neutron)), service_type="network"
        )
        self._paths: Dict[str, Callable[[str], Any]] = {
            "/servers/detail": self._servers,
            "/demo/counters": lambda query: green.counters(),
            "/demo/yield": yield_in_next_select,
            "/demo/busy": worker.run,
        }

    def __call__(
        self, environ: Dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        try:
            act = self._paths[environ["PATH_INFO"]]
            status, data = "200 OK", act(environ.get("QUERY_STRING", ""))
        except Exception as error:  # as nova's own outermost layer does
            status = "500 Internal Server Error"
            data = {"computeFault": {"code": 500, "message": str(error)}}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(data).encode()]

    def _servers(self, query: str) -> Dict[str, List[Any]]:
        reply = self._neutron.get("/v2.0/ports", params={"device_id": "c0ffee42"})
        return {"servers": [{"id": port["device_id"]} for port in reply.json()["ports"]]}


def yield_in_next_select(query: str) -> None:
    """Have other green threads run in the midst of the next green ``select()``, for 10 ms.

    A log line, a lock or a finalizer does that to a service now and then. Where the ``select()``
    has a timeout of 0, both of its timers fire meanwhile, and nothing wakes it any more but its
    socket (eventlet issue 798).
    """
    hub = hubs.get_hub()
    add = hub.add

    def add_and_yield(event: str, descriptor: int, callback: Any, *more: Any) -> Any:
        listener = add(event, descriptor, callback, *more)
        if callback.__qualname__.startswith("select."):
            hub.add = add
            eventlet.sleep(0.01)
        return listener

    hub.add = add_and_yield


def main(neutron: str, descriptor: str) -> None:
    """Serve for ever, one green thread for each connection.

    :param descriptor: of the listening socket.
    """
    eventlet.wsgi.server(socket.socket(fileno=int(descriptor)), Nova(neutron), log=sys.stderr)
