"""Traffic with a dead connection in it, for scripts that run in a fresh interpreter."""

import urllib3

import stalepool  # noqa: F401
from stalepool_testing import CloseAfter, FaultServer, Respond


def meet_a_dead_connection() -> str:
    """Make two requests, the second on a connection that was closed meanwhile; gives the origin."""
    with FaultServer([Respond(200), CloseAfter(0)]) as server:
        with urllib3.HTTPConnectionPool(server.host, server.port, retries=False) as pool:
            pool.request("GET", "/")
            server.wait_ended()
            assert pool.request("GET", "/").status == 200
        return "http://%s:%d" % (server.host, server.port)
