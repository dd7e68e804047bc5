"""While green threads wait in a replay or a reconnect, an eventlet worker answers all others."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Iterator, List

import pytest

from conftest import clean_environ
from gates import Gate
from stalepool_testing import AnswerStep, BlackHole, Close, Exchange, FaultServer, Respond
from worlds import WITH_TESTS

OUTAGE_S = 0.8
#: the read timeout of the worker's requests: half of it has to pass before a peer that is silent
#: is given up
PATIENCE_S = {"stock": 1.5, "shim": 10.0}
#: the part of its usual answers that a worker gives at least: one that sleeps for real gives next
#: to none
PART = 1 / 4

WORKER = """
    import json, sys

    from worlds import enter
    enter("eventlet")
    import eventlet, eventlet.wsgi
    import urllib3

    import stalepool
    if stalepool.is_installed():
        stalepool.install(reconnect_window_s=60, silence_s=1)
    backends = urllib3.PoolManager(retries=False, timeout=float(sys.argv[1]))

    def call(method, url):
        try:
            return backends.request(method, url).status
        except urllib3.exceptions.HTTPError as error:
            return type(error).__name__

    def application(environ, start_response):
        answer = "at once"
        if environ["PATH_INFO"] == "/backend":
            answer = call(environ["REQUEST_METHOD"], environ["HTTP_X_BACKEND"])
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    listener = eventlet.listen(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    eventlet.wsgi.server(listener, application, log_output=False)
"""


class Worker:
    """A service in a process of its own, that asks backends."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str, method: str = "GET", backend: str = "") -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"X-Backend": backend})
            return json.loads(connection.getresponse().read())

    def call(self, method: str, backend: str) -> Any:
        """Have it call a backend: the status, or the error's name."""
        return self.ask("/backend", method, backend)

    def answers_during(self, seconds: float) -> int:
        """How many requests it answers meanwhile, one after the other."""
        until, answers = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            assert self.ask("/quick") == "at once"
            answers += 1
        return answers


@contextlib.contextmanager
def worker(who: str) -> Iterator[Worker]:
    environ = clean_environ(**WITH_TESTS, STALEPOOL_ENABLED="1" if who == "shim" else "0")
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(PATIENCE_S[who])]
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        port = process.stdout.readline()
        assert port, process.stderr.read()
        yield Worker(int(port))
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert "Traceback" not in said, said


#: what the worker meets -> (method, backend, what stock comes to)
CALLS = {
    "a replay out of a black hole": ("GET", "swallowing", "ReadTimeoutError"),
    "a reconnect": ("GET", "restarting", "NewConnectionError"),
    "a reconnect, POST": ("POST", "restarting", "NewConnectionError"),
    "a replay that has to reconnect": ("GET", "dying", "ProtocolError"),
}


@dataclass(frozen=True)
class Die(AnswerStep):
    """Closes as the request arrives, and listens no more. Not processed."""

    gates: List[Gate]
    keeps_connection = False

    def answer(self, exchange: Exchange) -> None:
        for gate in self.gates:
            gate.stop_listening()
        Close().answer(exchange)


@pytest.mark.full
@pytest.mark.parametrize("who", ["stock", "shim"])
def test_a_worker_that_waits(who):
    """All of them at once; nobody else notices."""
    dying: List[Gate] = []
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        servers = {
            "swallowing": enter(FaultServer([Respond(200), BlackHole()])),
            "restarting": enter(FaultServer()),
            "dying": enter(FaultServer([Respond(200), Die(dying)])),
        }
        gates = {name: enter(Gate(server)) for name, server in servers.items()}
        gates["swallowing"] = servers["swallowing"]
        dying.append(gates["dying"])
        service = enter(worker(who))
        usual = service.answers_during(OUTAGE_S)
        for gate in gates.values():
            assert service.call("GET", gate.url) == 200
        servers["swallowing"].wait_idle_step()
        gates["restarting"].shut()

        calling = enter(ThreadPoolExecutor(len(CALLS)))
        calls = {
            name: calling.submit(service.call, method, gates[backend].url)
            for name, (method, backend, _) in CALLS.items()
        }
        answers = service.answers_during(OUTAGE_S)
        waiting = [name for name, call in calls.items() if not call.done()]
        for name in ("restarting", "dying"):
            gates[name].open()
        results = {name: call.result() for name, call in calls.items()}
        posts = servers["restarting"].journal.processed("POST")

    assert answers > usual * PART
    if who == "stock":
        assert results == {name: failure for name, (_, _, failure) in CALLS.items()}
        assert waiting == ["a replay out of a black hole"]  # for the caller's patience to end
        assert len(posts) == 0
    else:
        assert results == dict.fromkeys(CALLS, 200)
        assert waiting == list(CALLS)
        assert len(posts) == 1
