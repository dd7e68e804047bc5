"""A real haproxy with a short ``timeout http-keep-alive``: what it does to idle connections."""

from __future__ import annotations

import pytest

import lanes
from pools import await_arrival, counters, get, pool_for, pooled_connection, shim, stock, verdicts
from replay_routes import through_haproxy
from stalepool import stats
from stalepool_testing import TLS, FaultServer, kernel

pytestmark = pytest.mark.haproxy

KEEP_ALIVE_S = 0.3


@pytest.mark.parametrize("version", lanes.first(1, ["TLSv1.3", None]))
@pytest.mark.parametrize("who", [stock, shim], ids=["stock", "shim"])
def test_idle_past_the_keep_alive_timeout(haproxy_binary, who, version):
    """Three connections die of it; it can be read off the counters."""
    tls, keeps_ms = TLS(version) if version else None, int(KEEP_ALIVE_S * 1000)
    with who(), FaultServer() as server, through_haproxy(
        server, tls, haproxy_binary, keeps_ms
    ) as haproxy, pool_for(haproxy, tls) as pool:
        assert get(pool) == 200
        for _ in range(3):
            old = pooled_connection(pool).sock
            await_arrival(pool, kernel.POLLRDHUP)
            assert get(pool) == 200
            assert pooled_connection(pool).sock is not old
        assert len(server.journal) == 4
        if who is shim:
            assert verdicts(haproxy) == {"closed": 3}
            died = counters(haproxy)["died_idle_s"].items()
            # one of them may be late, at either end, on a busy machine
            _, age_s, _ = sorted(age_s for age_s, times in died for _ in range(times))
            assert KEEP_ALIVE_S * 0.95 <= age_s < KEEP_ALIVE_S * stats.BUCKET_RATIO**3
