"""Which connections have a state at all, and its repr()."""

from __future__ import annotations

import gc
import http.client
import weakref
from typing import Any

import pytest
import urllib3

from pools import get, pooled_connection, serving, shim
from stalepool.connection import state
from stalepool_testing import healthy, reset


class ComputedSock(urllib3.connection.HTTPConnection):
    """A stub, which has no connection behind it."""

    sock: Any = property(lambda self: None, lambda self, value: None)


#: class -> whether its connections are looked after
CLASSES = {
    urllib3.connection.HTTPConnection: True,
    urllib3.connection.HTTPSConnection: True,
    type("Own", (urllib3.connection.HTTPConnection,), {}): True,
    ComputedSock: False,
    http.client.HTTPConnection: False,
}


@pytest.mark.parametrize("cls", CLASSES)
def test_the_classes_that_are_looked_after(cls: Any) -> None:
    assert state.is_http1(cls("127.0.0.1")) is CLASSES[cls]


def test_a_class_is_not_kept() -> None:
    """With it a whole copy of urllib3 would be, where tests delete and import it again."""
    own = type("Own", (urllib3.connection.HTTPConnection,), {})
    assert state.is_http1(own("127.0.0.1"))
    kept = weakref.ref(own)
    del own
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("make", [reset, healthy])
def test_a_socket_that_leads_to_no_address_of_the_connections(make: Any) -> None:
    """It has been reset, or leads to another port, as to a forwarder."""
    conn = urllib3.connection.HTTPConnection("127.0.0.1", 1)
    with make() as pair:
        conn.sock = pair.client
        assert state.adopt(conn).address is None


def test_a_state_shows_itself() -> None:
    with shim(), serving() as (server, pool):
        assert get(pool) == 200
        found = state.find(pooled_connection(pool).sock)
        assert repr(found) == "<State http://127.0.0.1:%d, idle, 1 answers>" % server.port


def test_of_large_first_bytes_nothing_is_kept() -> None:
    """What follows a hijacked answer is no request."""
    conn = urllib3.connection.HTTPConnection("127.0.0.1")
    request = state.Request(conn, b"x" * (state.RECORD_LIMIT + 1), is_reused=True)
    assert request.sent == [b""] and not request.is_recorded
