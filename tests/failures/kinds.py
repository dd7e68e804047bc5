"""The kinds of socket a urllib3 pool can hold, as far as a failure on them differs.

``socket_states`` makes them. It is not imported here: a green library patches its process first.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple


class Kind(NamedTuple):
    """One kind of client socket.

    ``made_as``: its TLS version, None without -> its name in ``socket_states.KINDS``.
    ``green``: the library that patches the process, None without. ``needs``: what it is made of.
    ``depth``: how many TLS layers there are. ``shuts_down``: its ``shutdown()`` is the kernel's.
    """

    made_as: Dict[Optional[str], str]
    green: Optional[str] = None
    needs: Tuple[str, ...] = ()
    depth: int = 1
    shuts_down: bool = True


PLAIN: Dict[Optional[str], str] = {None: "ipv4"}


def _tls(name: str) -> Dict[Optional[str], str]:
    return {"TLSv" + number: name + number for number in ("1.2", "1.3")}


KINDS: Dict[str, Kind] = {
    "socket": Kind(PLAIN),
    "eventlet socket": Kind(PLAIN, "eventlet", ("eventlet",)),
    "gevent socket": Kind(PLAIN, "gevent", ("gevent",)),
    "ssl": Kind(_tls("tls")),
    "eventlet ssl": Kind(_tls("tls"), "eventlet", ("eventlet",)),
    "gevent ssl": Kind(_tls("tls"), "gevent", ("gevent",)),
    "SSLTransport": Kind(_tls("tls-in-tls"), needs=("urllib3",), depth=2, shuts_down=False),
    "pyOpenSSL": Kind(_tls("pyopenssl"), needs=("urllib3", "OpenSSL"), shuts_down=False),
}
