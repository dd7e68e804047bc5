"""urllib3 clients of the benchmark's server."""

from __future__ import annotations

from typing import Any, Dict


def pool(at: Dict[str, Any], maxsize: int = 1) -> Any:
    """A pool for the server at ``at`` (:attr:`bench.server.Server.at`)."""
    import urllib3

    if at["ca_path"] is None:
        return urllib3.HTTPConnectionPool("127.0.0.1", at["port"], maxsize=maxsize)
    return urllib3.HTTPSConnectionPool(
        "127.0.0.1", at["port"], maxsize=maxsize, ca_certs=at["ca_path"]
    )


def used_connection(at: Dict[str, Any]) -> Any:
    """A connection that has answered a request, as it lies in a pool: TLS's tickets are read."""
    one = pool(at)
    assert one.request("GET", "/").status == 200
    return one.pool.get()
