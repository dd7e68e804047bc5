"""``Keep-Alive: timeout=N``: a short limit is no reason to open a connection each time."""

from __future__ import annotations

import pytest

from pools import counters, get, serving, shim, stock, verdicts
from stalepool_testing import Respond

WHO = {"stock": stock, "shim": lambda: shim(nonidempotent_max_idle_s="auto", presend_check=True)}
REQUESTS = 300


def ask(hint: str, method: str = "GET"):
    """Many requests at once; how many connections that took, and what was counted."""
    default = Respond(headers={"Keep-Alive": hint})
    with serving(default=default) as (server, pool):
        for _ in range(REQUESTS):
            assert pool.request(method, "/").status == 200
        return len(server.journal.connections), counters(server).get("moved"), verdicts(server)


@pytest.mark.each_value
@pytest.mark.parametrize("hint", ["timeout=1", "timeout=2", "timeout=2, max=1000"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("who", WHO)
def test_a_short_limit(who, method, hint):
    """Stock: one connection for all of them."""
    with WHO[who]():
        connections, moved, _ = ask(hint, method)
    assert connections == 1
    assert not moved


def test_stock_does_not_read_the_header():
    """Stock: one connection, though the server said that it would not be kept."""
    with stock():
        assert ask("timeout=0")[0] == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_limit_of_0_is_not_reused(method):
    """Stock reuses it, and may meet its end."""
    with WHO["shim"]():
        connections, _, verdicts = ask("timeout=0", method)
    assert connections == REQUESTS
    assert verdicts == {"idle_too_long": REQUESTS - 1}


def test_a_limit_that_is_taken_back():
    """Stock: as ever. It is the last answer's word that counts."""
    with WHO["shim"]():
        script = [Respond(headers={"Keep-Alive": "timeout=%d" % limit}) for limit in (1, 0, 5)]
        with serving(script) as (server, pool):
            assert [get(pool) for _ in range(4)] == [200] * 4
            assert [entry.connection for entry in server.journal] == [0, 0, 1, 1]
