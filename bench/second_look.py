"""The second look, just before a request's first byte: a request with it and without."""

from __future__ import annotations

import functools
import inspect
import select
import types
from typing import Any, Callable

from bench.rounds import Contest, Contestant, Samples
from bench.world import kernel_poll


def measure(rounds: int) -> Samples:
    """A request that is sent nowhere and answered at once, so that all it costs is ours."""
    _hollow_out_urllib3()
    from urllib3 import HTTPConnectionPool, Timeout

    import stalepool  # noqa: F401  # wraps what is left of it
    from stalepool.testing import healthy, into_pool

    pair, pool = healthy(), HTTPConnectionPool("127.0.0.1", 9, maxsize=1)
    connection = into_pool(pool, pair.client)
    request = functools.partial(
        pool._make_request,
        connection,
        "GET",
        timeout=Timeout(60),
        body=None,
        headers={"accept": "application/json"},
        chunked=False,
    )
    kept = kernel_poll()
    kept.register(pair.client.fileno(), select.POLLIN)
    with pair:
        return Contest(
            {
                "floor": Contestant(kept.poll, 0),
                "on": Contestant(request, "/", _switched(connection, True)),
                "off": Contestant(request, "/", _switched(connection, False)),
            }
        ).rounds(rounds)


def _hollow_out_urllib3() -> None:
    """Before it is wrapped: what remains under our seams does nothing."""
    import urllib3.connectionpool

    connectionpool: Any = urllib3.connectionpool
    pool_class, answer = connectionpool.HTTPConnectionPool, types.SimpleNamespace()
    answer.status, answer.headers = 200, {}

    def _make_request(self: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
        conn.send(b"")
        return answer

    def send(self: Any, data: Any) -> None:
        pass

    # what is wrapped is told by its parameters
    hollow: Any = _make_request
    hollow.__signature__ = inspect.signature(pool_class._make_request)
    pool_class._make_request = hollow
    connectionpool.HTTPConnection.send = send


def _switched(connection: Any, second_look: bool) -> Callable[[], None]:
    def switch() -> None:
        import urllib3.connectionpool

        import stalepool

        connectionpool: Any = urllib3.connectionpool
        stalepool.install(second_look=second_look, max_idle_s="off")
        # the first check after other settings looks closer, and the second one is short again
        for _ in range(2):
            assert not connectionpool.is_connection_dropped(connection)

    return switch
