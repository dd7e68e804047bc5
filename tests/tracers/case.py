"""One case as a process: an instrumentation, an order of imports, and requests in three rounds.

With the shim, after ``uninstall()``, and after another ``install()``. Prints as JSON what came of
each request, and what the tool recorded of it.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import socket
import sys
from functools import partial
from typing import Any, Callable, Dict, List, Set, Tuple

from errors import links
from tracers.tools import TOOLS, Recording

#: what is done in which order; the client is imported last, where it is not named
ORDERS: Dict[str, Tuple[str, ...]] = {
    "tool, stalepool": ("tool", "stalepool", "client"),
    "stalepool, tool": ("stalepool", "tool", "client"),
    "urllib3, tool, stalepool": ("urllib3", "client", "tool", "stalepool"),
    "urllib3, stalepool, tool": ("urllib3", "client", "stalepool", "tool"),
}

#: the requests of a round; the server closes as the first of those to /dies arrives
REQUESTS = (
    ("GET", "first"),
    ("GET", "kept"),
    ("GET", "dies"),
    ("GET", "before"),
    ("POST", "dies-too"),
)
ROUNDS = ("shim", "stock", "again")

Ask = Callable[[str, str], Any]


def main(name: str, order: str, url: str, ca_path: str) -> None:
    elsewhere = _watch_network(int(url.rpartition(":")[2]))
    tool = TOOLS[name]
    recording: Any = None
    seen: List[str] = []
    for step in ORDERS[order]:
        if step == "tool":
            recording = tool.set_up(seen)
        else:
            importlib.import_module(tool.client if step == "client" else step)
    import stalepool

    ask = {"urllib3": _with_urllib3, "requests": _with_requests}[tool.client](url, ca_path)
    play = partial(_play, ask, recording, seen)
    said: Dict[str, Any] = {"shim": play("shim")}
    said["replays"] = stalepool.snapshot()["totals"]["replays"]
    said["unpatched"] = stalepool.snapshot()["unpatched"]
    said["fallbacks"] = stalepool.snapshot()["fallbacks"]
    said["left"] = stalepool.uninstall()
    said["stock"] = play("stock")
    stalepool.install()
    said["again"] = play("again")
    said["elsewhere"] = sorted(elsewhere)
    print(json.dumps(said), flush=True)
    os._exit(0)  # no last words of the tool's to a server that is not there


def _play(ask: Ask, recording: Recording, seen: List[str], round_name: str) -> Dict[str, Any]:
    """Make the requests of a round; returns for each (what came of it, what the tool saw)."""
    found = {}
    for method, path in REQUESTS:
        seen.clear()
        with recording():
            try:
                came: Any = ask(method, "/%s/%s" % (round_name, path))
            except Exception as error:
                came = _describe(error)
        found[path] = (came, list(seen))
    return found


def _with_urllib3(url: str, ca_path: str) -> Ask:
    import urllib3

    options: Dict[str, Any] = {"ca_certs": ca_path} if url.startswith("https") else {}
    pool = urllib3.connection_from_url(url, retries=False, maxsize=1, timeout=20.0, **options)
    body = {"GET": None, "POST": b"pay 10"}
    return lambda method, path: pool.request(method, path, body=body[method]).status


def _with_requests(url: str, ca_path: str) -> Ask:
    import requests

    session = requests.Session()
    session.verify = ca_path
    session.trust_env = False
    body = {"GET": None, "POST": b"pay 10"}
    return lambda method, path: (
        session.request(method, url + path, data=body[method], timeout=20.0).status_code
    )


def _describe(error: Any) -> List[str]:
    """Name an exception and those behind it, as stock's can be compared with ours."""
    said = [(type(each).__name__, re.sub(r"0x[0-9a-f]+", "0x", str(each))) for each in links(error)]
    return ["%s: %s" % each for each in said]


def _watch_network(port: int) -> Set[str]:
    """Note whom this process asks or connects to, but for the server of the test."""
    found: Set[str] = set()

    def audit(event: str, arguments: Tuple[Any, ...]) -> None:
        if event == "socket.connect":
            sock, address = arguments
            # a datagram socket is connected without a word, to learn one's own address
            if sock.type != socket.SOCK_DGRAM and address[1:2] != (port,):
                found.add("connect %r" % (address,))
        elif event == "socket.getaddrinfo" and arguments[1] != port:
            found.add("look up %r" % (arguments[0],))

    sys.addaudithook(audit)
    return found
