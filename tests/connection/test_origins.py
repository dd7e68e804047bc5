"""The names of connections, and which connections are known."""

import gc
import weakref

import pytest
from urllib3.connection import HTTPConnection, HTTPSConnection

from stalepool.connection import origins

TUNNEL = {"_tunnel_host": "[::1]", "_tunnel_port": 443}
SOCKS = {"_socks_options": {"proxy_host": "proxy", "proxy_port": 1080}}


@pytest.mark.parametrize(
    ("conn", "attributes", "origin", "peer"),
    [
        (HTTPConnection("api", 80), {}, "http://api:80", "http://api:80"),
        (HTTPSConnection("::1", 443), {}, "https://[::1]:443", "https://[::1]:443"),
        (HTTPSConnection("proxy", 3128), TUNNEL, "https://[::1]:443", "http://proxy:3128"),
        (HTTPConnection("api", 80), SOCKS, "http://api:80", "socks://proxy:1080"),
    ],
)
def test_the_names(conn, attributes, origin, peer):
    vars(conn).update(attributes)
    assert (origins.origin_of(conn), origins.peer_of(conn)) == (origin, peer)


def test_a_stub_that_computes_its_socket_is_not_known():
    """vcrpy's is of urllib3's class, too."""
    assert not origins.is_http1(object.__new__(type("Stub", (HTTPConnection,), {"sock": None})))


def test_a_class_is_not_kept():
    """With it a whole copy of urllib3 would be, where tests delete and import it again."""
    own = type("Own", (HTTPConnection,), {})
    assert origins.is_http1(own("127.0.0.1"))
    kept = weakref.ref(own)
    del own
    gc.collect()
    assert kept() is None
