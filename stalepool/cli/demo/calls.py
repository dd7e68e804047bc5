"""One HTTP call on a connection of its own, with the standard library alone."""

from __future__ import annotations

import http.client
from typing import NamedTuple, Optional

from stalepool.cli.demo.processes import Address


class Reply(NamedTuple):
    """An HTTP status and the body as text."""

    status: int
    body: str


def call(method: str, address: Address, path: str, timeout_s: Optional[float] = None) -> Reply:
    """Send a request without a body and read the whole answer.

    :param timeout_s: how long to wait for the server at each step; None: for ever.
    :raises OSError: connection refused, reset or timed out (``socket.timeout``).
    :raises http.client.HTTPException: what came is no HTTP answer.
    """
    connection = http.client.HTTPConnection(*address, timeout=timeout_s)
    try:
        connection.request(method, path, headers={"Connection": "close"})
        response = connection.getresponse()
        return Reply(response.status, response.read().decode())
    finally:
        connection.close()
