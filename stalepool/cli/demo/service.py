"""nova-api's process, as the demo starts and asks it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional

from stalepool.cli.complaint import Complaint

_LAST_WORDS = 2000  # characters of a log
_DYING_S = 1.0
_BOUND_S = 60.0

# it imports what the demo itself would, and nothing from the working directory
_START = f"""\
import sys
sys.path[:] = sys.argv.pop(1).split({os.pathsep!r})
from stalepool.cli.demo import nova
nova.main(*sys.argv[1:])
"""


class Reply(NamedTuple):
    """An HTTP status and the body as text."""

    status: int
    body: str


def call(method: str, port: int, path: str, timeout_s: Optional[float] = None) -> Reply:
    """Send a request to a port of this machine, on a connection of its own; read the whole answer.

    :param timeout_s: for each step; None: for ever.
    :raises OSError: connection refused, reset, or timed out (``socket.timeout``).
    :raises http.client.HTTPException: what came is no HTTP answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, headers={"Connection": "close"})
        response = connection.getresponse()
        return Reply(response.status, response.read().decode())
    finally:
        connection.close()


class Service:
    """A process of nova-api; leaving the ``with`` block ends it, and so does the demo's death.

    Its port is bound here: a request that comes before it is ready waits.

    :param neutron: neutron's URL.
    :param log: where it logs to.
    :param settings: the ``STALEPOOL_*`` variables it sees.
    """

    def __init__(self, neutron: str, log: Path, settings: Mapping[str, str]) -> None:
        self._log = log
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        with open(log, "wb") as output, socket.create_server(("127.0.0.1", 0)) as listener:
            descriptor = listener.fileno()
            self.port: int = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, path, neutron, str(descriptor)],
                stdin=subprocess.PIPE,  # never written to: its end is the demo's
                stdout=output,
                stderr=output,
                env=_environment(settings),
                cwd=str(log.parent),  # the demo's own may be gone
                pass_fds=[descriptor],
                start_new_session=True,  # Ctrl-C is for the demo
            )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, path: str) -> Any:
        """Ask it for something that cannot fail; returns what it says.

        :raises Complaint: it fails, has ended, or does not answer within a minute.
        """
        try:
            reply = call("GET", self.port, path, _BOUND_S)
        except (OSError, http.client.HTTPException) as error:
            raise self._explained(str(error)) from error
        if reply.status != HTTPStatus.OK:
            raise self._explained(reply.body)
        return json.loads(reply.body)

    def _explained(self, answer: str) -> Complaint:
        try:
            status = self._process.wait(_DYING_S)
        except subprocess.TimeoutExpired:
            return Complaint(f"nova-api does not answer as it should: {answer}")
        return Complaint(f"nova-api has ended with status {status}; {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return f"its last words:\n{self._log.read_text(errors='replace')[-_LAST_WORDS:].strip()}"


def _environment(settings: Mapping[str, str]) -> Dict[str, str]:
    """The caller's environment without what would change the demo: proxies, and settings."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STALEPOOL")
        and not name.lower().endswith("_proxy")
        and name != "PYTHONWARNINGS"  # as errors, eventlet's own about its age would end it
    }
    return {**environment, **settings}
