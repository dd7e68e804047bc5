"""The stale states by name."""

from __future__ import annotations

import socket

import pytest

from stalepool_testing import Pair, stale_socket, stale_states
from stalepool_testing.kernel import POLLERR, POLLIN, events_on


def test_the_names() -> None:
    assert stale_states(tls=True) and stale_states(tls=False)
    assert stale_states() == stale_states(tls=False) + stale_states(tls=True)


def looks_stale(pair: Pair) -> bool:
    return bool(events_on(pair.client) & (POLLIN | POLLERR)) or bool(
        getattr(pair.client, "pending", lambda: 0)()
    )


@pytest.mark.parametrize("state", stale_states())
def test_each_is_there(state: str) -> None:
    with stale_socket(state) as pair:
        assert looks_stale(pair) == (state != "black_hole")  # which nothing betrays


def test_options() -> None:
    with stale_socket("eof", family=socket.AF_UNIX) as pair:
        assert pair.client.family == socket.AF_UNIX
    with stale_socket("tls_unread", version="TLSv1.2") as pair:
        assert pair.client.version() == "TLSv1.2"
