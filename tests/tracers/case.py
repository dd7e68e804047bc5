"""One case as a process: an instrumentation, an order of imports, and requests in three rounds.

With the shim, after ``uninstall()``, and after another ``install()``. Prints as JSON what came of
each request, and what the tool recorded of it.
"""

import importlib
import json
import os

from tracers.tools import TOOLS

#: what is done in which order; the client is imported last, where it is not named
ORDERS = {
    "tool, stalepool": ("tool", "stalepool", "client"),
    "stalepool, tool": ("stalepool", "tool", "client"),
    "urllib3, tool, stalepool": ("urllib3", "client", "tool", "stalepool"),
    "urllib3, stalepool, tool": ("urllib3", "client", "stalepool", "tool"),
}

#: the requests of a round; the server closes as the first of those to /dies arrives
REQUESTS = {"first": "GET", "kept": "GET", "dies": "GET", "before": "GET", "dies-too": "POST"}
BODIES = {"GET": None, "POST": b"pay 10"}


def main(name, order, url, ca_path):
    tool, seen, recording = TOOLS[name], [], None
    for step in ORDERS[order]:
        if step == "tool":
            recording = tool.set_up(seen)
        else:
            importlib.import_module(tool.client if step == "client" else step)
    import stalepool
    from oracle import describe_error

    ask = {"urllib3": with_urllib3, "requests": with_requests}[tool.client](url, ca_path)

    def play(round_name):
        """Make the requests of a round; returns for each (what came of it, what the tool saw)."""
        found = {}
        for path, method in REQUESTS.items():
            seen.clear()
            with recording():
                try:
                    came = ask(method, "/%s/%s" % (round_name, path))
                except Exception as error:
                    came = describe_error(error)
            found[path] = (came, list(seen))
        return found

    said = {"shim": play("shim")}
    snapshot = stalepool.snapshot()
    said["replays"] = snapshot["totals"]["replays"]
    said["wrong"] = [snapshot["unpatched"], snapshot["fallbacks"], stalepool.uninstall()]
    said["stock"] = play("stock")
    stalepool.install()
    said["again"] = play("again")
    print(json.dumps(said), flush=True)
    os._exit(0)  # no last words of the tool's to a server that is not there


def with_urllib3(url, ca_path):
    import urllib3

    options = {"ca_certs": ca_path} if url.startswith("https") else {}
    pool = urllib3.connection_from_url(url, retries=False, maxsize=1, timeout=20.0, **options)
    return lambda method, path: pool.request(method, path, body=BODIES[method]).status


def with_requests(url, ca_path):
    import requests

    session = requests.Session()
    session.verify, session.trust_env = ca_path, False
    return lambda method, path: (
        session.request(method, url + path, data=BODIES[method], timeout=20.0).status_code
    )
